"""Where to perturb, one file each. A new perturbation is one file and one line here, or `register_perturbation`."""

from ..components import Registry
from .base import Ascent, Perturbation
from .gradient import GradientAscent


PERTURBATIONS = Registry("perturbation", Perturbation)
PERTURBATIONS.register("gradient", GradientAscent)

DEFAULT_PERTURBATION = "gradient"

#: Makes a class known: `register_perturbation("name", Class)`, or as a decorator, `@register_perturbation("name")`.
register_perturbation = PERTURBATIONS.register

__all__ = ["DEFAULT_PERTURBATION", "PERTURBATIONS", "Ascent", "Perturbation", "register_perturbation"]
