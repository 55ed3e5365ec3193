"""Callbacks that see a window before its update, with the gradient engine in hand.

In go the engine, the window and the method; out come named scalars, which the Trainer logs as means beside the loss.
"""

from abc import ABC, abstractmethod

from torch import Tensor
from transformers import TrainerCallback

from ..engine import GradientEngine, Window
from ..methods import Method


class WindowCallback(TrainerCallback, ABC):
    """A [`~transformers.TrainerCallback`] that [`SAMTrainerMixin`] also asks about every window, on all ranks."""

    def check(self, method: Method) -> None:
        """Called when the Trainer is made; raises `ValueError` if there is nothing to see under `method`."""

    @abstractmethod
    def on_window(self, engine: GradientEngine, window: Window, method: Method, global_step: int) -> dict[str, Tensor]:
        """
        Called before the update `global_step` (counted from 0) looks at `window`, with all weights at w_t. Whatever it
        computes, `.grad` and the random streams have to be left as they were.

        Returns:
            `dict[str, Tensor]`: name -> scalar to log; empty for nothing.
        """
