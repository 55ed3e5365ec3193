"""Where to perturb, one file each. A new perturbation is one file and one line here, or `register_perturbation`."""

from ..components import Registry
from .base import Ascent, Perturbation
from .friendly import FriendlySAM
from .gradient import GradientAscent
from .momentum import MomentumAscent
from .previous import PreviousAscent
from .random import RandomAscent
from .vasso import VaSSO


PERTURBATIONS = Registry("perturbation", Perturbation)
PERTURBATIONS.register("gradient", GradientAscent)
PERTURBATIONS.register("friendly", FriendlySAM)
PERTURBATIONS.register("vasso", VaSSO)
PERTURBATIONS.register("momentum", MomentumAscent)
PERTURBATIONS.register("random", RandomAscent)
PERTURBATIONS.register("previous", PreviousAscent)

DEFAULT_PERTURBATION = "gradient"

#: Makes a class known: `register_perturbation("name", Class)`, or as a decorator, `@register_perturbation("name")`.
register_perturbation = PERTURBATIONS.register

__all__ = ["DEFAULT_PERTURBATION", "PERTURBATIONS", "Ascent", "Perturbation", "register_perturbation"]
