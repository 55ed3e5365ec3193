"""Where to perturb: in go weights and their ascent gradients, out comes a displacement of those weights."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from ..components import Component


@dataclass(frozen=True)
class Ascent:
    """
    What a perturbation is made from.

    Args:
        weights (`Sequence[Tensor]`): the weights to displace, at w_t, always in the same order.
        gradients (`Sequence[Tensor]`): the ascent gradient, one tensor for each weight, of the same shape. Empty for a
            perturbation that needs none.
        rho (`float`): radius ρ ≥ 0 of this update.
        loss_scale (`Tensor`, *optional*): factor that the gradients carry under fp16.
        overwrite (`bool`, *optional*, defaults to `False`): the memory of `gradients` may become the displacement.
        optimizer (`Optimizer`, *optional*): the base optimizer, whose state may be read.
    """

    weights: Sequence[Tensor]
    gradients: Sequence[Tensor]
    rho: float
    loss_scale: Tensor | None = None
    overwrite: bool = False
    optimizer: Optimizer | None = None


class Perturbation(Component):
    """
    Turns an ascent gradient into a displacement. It owns its state, which starts empty and is part of a checkpoint.

    Args:
        options: an instance of `options_class`.
    """

    #: `False`: the displacement is known before any gradient of the window is, which saves one gradient.
    needs_gradient = True

    def __init__(self, options: Any = None):
        self.options = self.options_class() if options is None else options

    @abstractmethod
    def __call__(self, ascent: Ascent) -> tuple[list[Tensor], Tensor]:
        """
        Called once for each ascent: once per update, or once per micro-batch with `ascent_scope="micro_batch"`.

        Returns:
            `tuple[list[Tensor], Tensor]`: ε, one tensor for each weight, of its shape and dtype; and the norm of the
            ascent gradient without its loss scale (a scalar), which is logged.
        """

    def reset(self) -> None:
        """Forget all state: a new run of training begins."""

    def state_dict(self, names: dict[Tensor, str]) -> dict[str, Tensor]:
        """What a resumed run needs, under any names. `names`: weight -> name."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor], weights: dict[str, Tensor]) -> None:
        """Take up what `state_dict` returned. `weights`: name -> weight."""
