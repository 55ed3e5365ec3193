"""Several processes: which rank does what, what they tell each other, and which data each of them reads."""

from .exchange import PairExchange
from .topology import Pairs, Role


__all__ = ["PairExchange", "Pairs", "Role"]
