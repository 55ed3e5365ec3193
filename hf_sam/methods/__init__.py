"""What to do with the gradients, one file each. A new method is one file and one line here, or `register_method`."""

from ..components import Registry
from .ae_sam import AESAM
from .base import Method, Update
from .gsam import GSAM
from .looksam import LookSAM
from .other_batch import OtherBatchSAM
from .penalty import Penalty
from .random_smoothing import RandomSmoothingSAM
from .sam import SAM
from .sampa import SAMPa
from .stale import StaleSAM
from .stock import Stock


METHODS = Registry("method", Method)
METHODS.register("none", Stock)
METHODS.register("sam", SAM)
METHODS.register("sampa", SAMPa)
METHODS.register("stale", StaleSAM)
METHODS.register("other_batch", OtherBatchSAM)
METHODS.register("random_smoothing", RandomSmoothingSAM)
METHODS.register("penalty", Penalty)
METHODS.register("gsam", GSAM)
METHODS.register("looksam", LookSAM)
METHODS.register("ae_sam", AESAM)

#: Makes a class known: `register_method("name", Class)`, or as a decorator, `@register_method("name")`.
register_method = METHODS.register

__all__ = ["METHODS", "Method", "Update", "register_method"]
