"""Where to perturb, one file each. A new perturbation is one file and one line here, or `register_perturbation`."""

from ..components import Registry
from .asam import ASAM
from .base import Ascent, Perturbation
from .fisher import Fisher
from .friendly import FriendlySAM
from .gradient import GradientAscent
from .loss_budget import LossBudget
from .momentum import MomentumAscent
from .preconditioned import Preconditioned
from .previous import PreviousAscent
from .random import RandomAscent
from .sam_on import SAMOn
from .samson import SAMSON
from .sparse import Sparse
from .vasso import VaSSO
from .zsharp import ZSharp


PERTURBATIONS = Registry("perturbation", Perturbation)
PERTURBATIONS.register("gradient", GradientAscent)
PERTURBATIONS.register("friendly", FriendlySAM)
PERTURBATIONS.register("vasso", VaSSO)
PERTURBATIONS.register("momentum", MomentumAscent)
PERTURBATIONS.register("random", RandomAscent)
PERTURBATIONS.register("previous", PreviousAscent)
PERTURBATIONS.register("asam", ASAM)
PERTURBATIONS.register("samson", SAMSON)
PERTURBATIONS.register("sam_on", SAMOn)
PERTURBATIONS.register("fisher", Fisher)
PERTURBATIONS.register("sparse", Sparse)
PERTURBATIONS.register("zsharp", ZSharp)
PERTURBATIONS.register("preconditioned", Preconditioned)
PERTURBATIONS.register("loss_budget", LossBudget)

DEFAULT_PERTURBATION = "gradient"

#: Makes a class known: `register_perturbation("name", Class)`, or as a decorator, `@register_perturbation("name")`.
register_perturbation = PERTURBATIONS.register

__all__ = ["DEFAULT_PERTURBATION", "PERTURBATIONS", "Ascent", "Perturbation", "register_perturbation"]
