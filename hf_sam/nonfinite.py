"""Losses and gradients that are NaN or infinite: in go those of one rank, out come one warning, or no update."""

import logging

import torch
from torch import Tensor, nn

from .engine import GradientEngine, normalization_modules
from .weights import global_norm


logger = logging.getLogger(__name__)


class LossWatch:
    """
    Looks at the loss of each pass on this rank, before it is averaged over ranks. Nothing is read from the device
    until `report`.

    Args:
        rank (`int`): of this process.
    """

    def __init__(self, rank: int):
        self.rank = rank
        self._seen: list[tuple[str, int, Tensor]] = []
        self._has_warned = False

    def see(self, name: str, loss: Tensor, update: int) -> None:
        """`name`: of the pass. `update`: counted from 1."""
        if not self._has_warned:
            self._seen.append((name, update, loss.detach().isfinite()))

    def report(self) -> None:
        """Warn of the first loss since the last call that is not finite, once in a run."""
        seen, self._seen = self._seen, []
        if not seen or torch.stack([finite for _, _, finite in seen]).all():
            return
        name, update = next((name, update) for name, update, finite in seen if not finite)
        self._has_warned = True
        logger.warning(
            f"The loss of the {name} pass of update {update} on rank {self.rank} is not finite. As with the stock "
            "Trainer, this spreads to all weights, unless SAMConfig.skip_nonfinite_updates is set. Later ones are not "
            "reported."
        )


def statistics_of(model: nn.Module) -> list[Tensor]:
    """A copy of the running statistics, in the order of the modules."""
    return [buffer.clone() for module in normalization_modules(model) for buffer in module.buffers(recurse=False)]


def drop_nonfinite_gradient(engine: GradientEngine, statistics: list[Tensor]) -> bool:
    """
    Whether the gradient in `.grad`, which is the same on all ranks, is not finite. If so, it is dropped, so that the
    optimizer does nothing, and the running statistics are again those of `statistics`.
    """
    gradients = engine.take_gradients()
    if global_norm(list(gradients.values())).isfinite():
        engine.put_gradients(gradients)
        return False
    running = [buffer for module in normalization_modules(engine.model) for buffer in module.buffers(recurse=False)]
    for buffer, before in zip(running, statistics, strict=True):
        buffer.copy_(before)
    return True
