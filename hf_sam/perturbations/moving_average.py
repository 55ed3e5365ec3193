"""Perturbations that remember: along a direction that is made of the ascent gradient and a moving average of it."""

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from ..components import Conflict
from ..engine import GradientEngine
from ..weights import EPSILON, global_norm, scale
from .base import Ascent, Perturbation, matched


class AveragedAscent(Perturbation):
    r"""
    Keeps a moving average of the ascent gradients a, without loss scale and in their dtype:

        m ← m + share · (a - m)              the first time that a weight has a gradient, m = a
        ε = ρ q / (‖q‖₂ + 1e-12)             with q made of a and m by `direction`

    A class that derives from this one has `share` and `direction`.

    The average takes one step for each update that is not skipped. It is made of what the ascent gradient is: the mean
    over ranks with `ascent_scope="global"` and in SAMPa (whose h_t is a), otherwise of each rank's own. Under fp16 old
    and new averages are held until it is known whether the update is skipped, which needs as much memory once more.
    """

    conflicts = (
        Conflict(
            option="ascent_scope='micro_batch'",
            found=lambda s: s.config.ascent_scope == "micro_batch",
            why="since its moving average takes one step for each update",
            instead="use ascent_scope='rank' or 'global'",
        ),
    )
    state_of_rank = True

    def __init__(self, options: Any = None):
        super().__init__(options)
        self.reset()

    @property
    @abstractmethod
    def share(self) -> float:
        """Of a new gradient in the average."""

    @abstractmethod
    def direction(self, gradient: Tensor, average: Tensor, is_first: bool) -> Tensor:
        """q of one weight from its gradient and the average that has it in already; both are left as they are."""

    @torch.no_grad()
    def advance(self, ascent: Ascent) -> None:
        # To keep the old averages until it is known whether the update is skipped costs memory.
        kept = self._next if ascent.revocable else self.average
        for weight, gradient in zip(ascent.weights, ascent.gradients, strict=True):
            if ascent.loss_scale is not None:
                gradient = gradient / ascent.loss_scale.to(gradient.device)
            before = self.average.get(weight)
            if before is None:
                self._first.add(weight)
                kept[weight] = gradient.detach().clone()
            else:
                kept[weight] = (torch.lerp if ascent.revocable else Tensor.lerp_)(before, gradient, self.share)

    @torch.no_grad()
    def __call__(self, ascent: Ascent) -> tuple[list[Tensor], Tensor]:
        displacement = ascent.direction()
        if ascent.loss_scale is not None:
            scale(displacement, 1.0 / ascent.loss_scale)
        norm = global_norm(displacement)
        averages = self._next or self.average
        for weight, gradient in zip(ascent.weights, displacement, strict=True):
            # One after the other, so that no more than one tensor is held twice.
            gradient.copy_(self.direction(gradient, averages[weight], weight in self._first))
        scale(displacement, ascent.rho / (global_norm(displacement) + EPSILON))
        return displacement, norm

    def conclude(self, engine: GradientEngine) -> None:
        if self._next and engine.will_step:
            self.average.update(self._next)
        self._next, self._first = {}, set()

    def reset(self) -> None:
        self.average: dict[Tensor, Tensor] = {}
        # Of this update: the averages that replace the old ones if it is not skipped, and the weights that had none.
        self._next: dict[Tensor, Tensor] = {}
        self._first: set[Tensor] = set()

    def state_dict(self, names: dict[Tensor, str]) -> dict[str, Tensor]:
        return {names[weight]: value for weight, value in self.average.items()}

    def load_state_dict(self, state: dict[str, Tensor], weights: dict[str, Tensor]) -> None:
        """
        Raises:
            `ValueError`: the state is not that of these weights.
        """
        self.reset()
        self.average = matched(state, weights, f"what {self.description.name} remembers")
