"""What the ascent gradient is the gradient of, one file each. A new one is one file and one line here."""

from ..components import Registry
from .base import AscentLoss, TrainingLoss
from .bisam import BiSAM
from .host import AscentPass


ASCENT_LOSSES = Registry("ascent_loss", AscentLoss)
ASCENT_LOSSES.register("training", TrainingLoss)
ASCENT_LOSSES.register("bisam", BiSAM)

DEFAULT_ASCENT_LOSS = "training"

#: Makes a class known: `register_ascent_loss("name", Class)`, or as a decorator, `@register_ascent_loss("name")`.
register_ascent_loss = ASCENT_LOSSES.register

__all__ = ["ASCENT_LOSSES", "DEFAULT_ASCENT_LOSS", "AscentLoss", "AscentPass", "register_ascent_loss"]
