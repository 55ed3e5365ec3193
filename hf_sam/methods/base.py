"""What the Trainer asks of a training method."""

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor

from ..engine import GradientEngine, Window, WindowResult


class Method(ABC):
    """
    A method is asked for the gradient of one window at a time. It owns its state, which starts empty.

    Args:
        config ([`SAMConfig`]): the options.
        pairs ([`~hf_sam.parallel.Pairs`], *optional*): for a method that `runs_in_pairs`, the place of this process
            among several; `None` on a single process and for other methods.
    """

    #: The host's own step is used, untouched.
    is_stock = False
    #: `window_gradient` needs the next window too, so windows are read one ahead.
    needs_upcoming_window = False
    #: Over several ranks, two neighbours read the same data and compute two different gradients.
    runs_in_pairs = False

    def __init__(self, config: Any, pairs: Any = None):
        self.config = config
        self.pairs = pairs

    @property
    @abstractmethod
    def gradients_per_update(self) -> int:
        """How many gradients of one window this process computes for an update."""

    @property
    def rank_of_statistics(self) -> int:
        """A rank that computes the unperturbed pass; all others take over its running statistics after each update."""
        return 0

    @abstractmethod
    def window_gradient(self, engine: GradientEngine, window: Window, upcoming: Window | None = None) -> WindowResult:
        """Leave in `.grad` what the optimizer is to step with, and all weights with the bits they had before."""

    def reset(self) -> None:  # noqa: B027
        """Forget all state: a new run of training begins."""

    def state_dict(self, names: dict[Tensor, str]) -> dict[str, Tensor]:
        """What a resumed run needs besides the weights and the optimizer's state. `names`: weight -> name."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor], weights: dict[str, Tensor]) -> None:  # noqa: B027
        """Take up what `state_dict` returned. `weights`: name -> weight."""
