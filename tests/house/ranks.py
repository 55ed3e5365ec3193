"""Tiny runs on ranks that know the method and the perturbation from outside of the package."""

from tests.harness import Run, train
from tests.house import outside


__all__ = ["Run", "outside", "train"]
