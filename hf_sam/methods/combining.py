"""Methods that combine the gradients at and around the weights: what they share, and which gradients they ask for."""

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from ..components import Conflict
from ..engine import GradientEngine, WindowResult
from .base import NEEDS_ASCENT_GRADIENT, STATIC_GRAPH, Method, Update


# Of methods that look at the gradient of a whole window at the weights.
WHOLE_WINDOW_CONFLICTS = (
    Conflict(
        option="ascent_scope='micro_batch'",
        found=lambda s: s.config.ascent_scope == "micro_batch",
        why="since it combines the gradients of whole windows",
        instead="leave ascent_scope at its default, or use method='sam'",
    ),
    NEEDS_ASCENT_GRADIENT,
    STATIC_GRAPH,
)


class Combining(Method):
    """
    A method that steps with a combination of a = g(w; W) and p = g(w + ε; W). Both are averaged over all ranks, since
    both are part of what the optimizer steps with; so ε, too, is made from the average.
    """

    conflicts = WHOLE_WINDOW_CONFLICTS
    gradients_per_update = 2

    def window_gradient(self, engine: GradientEngine, update: Update) -> WindowResult:
        loss, plain = self.ascend(engine, update.window)
        with self.perturbed(engine, plain, update, engine.loss_scale, keep=True) as norm:
            perturbed_loss = engine.gradient(update.window, track_statistics=False)
        perturbed = engine.take_gradients()
        with torch.no_grad():
            engine.put_gradients(self.combine(engine, plain, perturbed))
        return WindowResult(loss=loss, perturbed_loss=perturbed_loss, ascent_grad_norm=norm)

    @abstractmethod
    def combine(
        self, engine: GradientEngine, plain: dict[Tensor, Tensor], perturbed: dict[Tensor, Tensor]
    ) -> dict[Tensor, Tensor]:
        """What the optimizer steps with, weight -> gradient, from a and p, whose memory it may use."""


def paired(left: dict[Tensor, Tensor], right: dict[Tensor, Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Both as lists over the same weights; what only one of them has gets zeros in the other, in place."""
    for own, other in ((left, right), (right, left)):
        own.update({weight: torch.zeros_like(gradient) for weight, gradient in other.items() if weight not in own})
    return [left[weight] for weight in left], [right[weight] for weight in left]


def dot(left: list[Tensor], right: list[Tensor]) -> Tensor:
    """The inner product over all tensors together, a scalar in float32 or wider."""
    if not left:
        return torch.zeros(())
    wide = torch.promote_types(left[0].dtype, torch.float32)
    products = [torch.sum(a.to(wide) * b) for a, b in zip(left, right, strict=True)]
    return torch.stack([product.to(products[0]) for product in products]).sum()


def add_scaled(tensors: list[Tensor], others: list[Tensor], factor: Any) -> None:
    """`tensors += factor · others`, in place; the factor may be a scalar on a device."""
    for tensor, other in zip(tensors, others, strict=True):
        tensor.add_(other * (factor.to(tensor) if torch.is_tensor(factor) else factor))
