"""No sharpness-aware training: the host Trainer as it is."""

from ..engine import GradientEngine, Window, WindowResult
from .base import Method


class Stock(Method):
    """The gradient of the window. The Trainer does not even ask for it: it lets its own step run."""

    is_stock = True
    gradients_per_update = 1

    def window_gradient(self, engine: GradientEngine, window: Window, upcoming: Window | None = None) -> WindowResult:
        raise RuntimeError("method 'none' has no gradient of its own; the host's training_step computes it.")
