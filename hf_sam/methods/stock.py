"""No sharpness-aware training: the host Trainer as it is."""

from ..components import Description
from ..engine import GradientEngine, WindowResult
from .base import Method, Update


class Stock(Method):
    """The gradient of the window. The Trainer does not even ask for it: it lets its own step run."""

    description = Description(
        name="none",
        full_name="the stock Trainer, untouched",
        story="The stock Trainer, without sharpness-aware training.",
        gradients="1",
        sequential="1",
    )
    shared_options = ()
    is_stock = True
    gradients_per_update = 1

    def window_gradient(self, engine: GradientEngine, update: Update) -> WindowResult:
        raise RuntimeError("method 'none' has no gradient of its own; the host's training_step computes it.")
