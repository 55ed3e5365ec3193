"""Where to perturb: in go weights and their ascent gradients, out comes a displacement of those weights."""

from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..components import Component
from ..engine import GradientEngine
from ..rng import Draws
from ..weights import EPSILON, global_norm, scale


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
        names (`Mapping[Tensor, str]`): of all weights that the run perturbs, also of those without a gradient now: the
            same weights in the same order on all ranks.
        update, updates (`int`): t, counted from 0 over the whole run, and the number of updates of the run.
        local (`bool`, *optional*, defaults to `False`): the gradients differ from rank to rank, and so may the
            displacements.
        draws ([`~hf_sam.rng.Draws`], *optional*): the random numbers of this update.
        revocable (`bool`, *optional*, defaults to `False`): this update may turn out to be skipped (fp16).
        row_gradients (`Callable`, *optional*): takes a number of rows; yields the gradient of one row of the window at
            a time (weight -> gradient), of as many rows over all ranks, or of all rows there are.
    """

    weights: Sequence[Tensor]
    gradients: Sequence[Tensor]
    rho: float
    loss_scale: Tensor | None = None
    overwrite: bool = False
    optimizer: Optimizer | None = None
    names: Mapping[Tensor, str] = field(default_factory=dict)
    update: int = 0
    updates: int = 1
    local: bool = False
    draws: Draws = field(default_factory=Draws)
    revocable: bool = False
    row_gradients: Callable[[int], Iterator[dict[Tensor, Tensor]]] | None = None

    @property
    def norm(self) -> Tensor:
        """‖a‖₂ without its loss scale, a scalar."""
        return self.norm_of(self.gradients)

    def norm_of(self, tensors: Sequence[Tensor]) -> Tensor:
        """L2 norm over `tensors`, which carry the loss scale, without it."""
        norm = global_norm(tensors)
        return norm if self.loss_scale is None else norm / self.loss_scale.to(norm)

    def direction(self) -> list[Tensor]:
        """The gradients, with their loss scale, in memory that may be written."""
        if self.overwrite:
            return list(self.gradients)
        copies = [torch.empty_like(gradient) for gradient in self.gradients]
        if copies:
            torch._foreach_copy_(copies, self.gradients)
        return copies

    def to_radius(self, direction: list[Tensor], norm: Tensor, rho: float | Tensor | None = None) -> list[Tensor]:
        """
        `direction · ρ / (norm + 1e-12)`, in place. Zeros stay zeros.

        Args:
            direction (`list[Tensor]`): carries the loss scale, which is taken out.
            norm (`Tensor`): a scalar without the loss scale.
            rho (`float` or `Tensor`, *optional*, defaults to that of this update): radius.
        """
        factor = (norm + EPSILON).reciprocal() * (self.rho if rho is None else rho)
        scale(direction, factor if self.loss_scale is None else factor / self.loss_scale.to(norm))
        return direction


class Perturbation(Component):
    """
    Turns an ascent gradient into a displacement. It owns its state, which starts empty and is part of a checkpoint.

    Args:
        options: an instance of `options_class`.
    """

    #: `False`: the displacement is known before any gradient of the window is, which saves one gradient.
    needs_gradient = True
    #: Ranks that ascend along gradients of their own (`ascent_scope="rank"`) have states of their own, each of which a
    #: checkpoint holds. If `False`, the state is the same on all ranks whatever the scope.
    state_of_rank = False
    #: What the error says where `choose` leaves no trainable weight.
    nothing_chosen = "there is no trainable weight that it perturbs"

    def __init__(self, options: Any = None):
        self.options = self.options_class() if options is None else options

    def choose(self, model: nn.Module) -> Collection[Tensor] | None:
        """The weights that it perturbs, `None` for all. Called with the model before a run, and maybe more often."""
        return None

    def advance(self, ascent: Ascent) -> None:
        """
        Take the ascent gradient into the state. Called once for each ascent, before the displacement is asked for, on
        every rank: also on one that displaces nothing itself (SAMPa's LOOKAHEAD ranks), so that all have the same
        state and any of them can save it. The gradients must stay as they are.
        """

    @abstractmethod
    def __call__(self, ascent: Ascent) -> tuple[list[Tensor], Tensor]:
        """
        Called at most once for each ascent: once per update, or once per micro-batch with
        `ascent_scope="micro_batch"`. The state stays as `advance` left it.

        Returns:
            `tuple[list[Tensor], Tensor]`: ε, one tensor for each weight, of its shape and dtype; and the norm of the
            ascent gradient without its loss scale (a scalar), which is logged.
        """

    def conclude(self, engine: GradientEngine) -> None:
        """
        Called at the end of each update that perturbs, with the gradient that the optimizer is to step with in
        `.grad`, the same on all ranks. What was learned in an update that will be skipped (`engine.will_step`) has to
        be forgotten here.
        """

    def reset(self) -> None:
        """Forget all state: a new run of training begins."""

    def state_dict(self, names: dict[Tensor, str]) -> dict[str, Tensor]:
        """What a resumed run needs, under any names. `names`: weight -> name."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor], weights: dict[str, Tensor]) -> None:
        """Take up what `state_dict` returned. `weights`: name -> weight."""


def matched(state: dict[str, Tensor], weights: dict[str, Tensor], what: str) -> dict[Tensor, Tensor]:
    """
    The tensors of a checkpoint by weight, where the weight is. `weights`: name -> weight.

    Raises:
        `ValueError`: there is no such weight, or it has another shape.
    """
    for name, value in state.items():
        if name not in weights or weights[name].shape != value.shape:
            raise ValueError(
                f"The checkpoint holds {what} for {name!r} (shape {tuple(value.shape)}), which the model does not "
                "have: resume with the same model."
            )
    return {weights[name]: value.to(weights[name]) for name, value in state.items()}
