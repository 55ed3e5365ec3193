"""Scalars between two logs: in go those of each update, on the device; out come their means over updates and ranks."""

import torch
import torch.distributed as dist
from torch import Tensor

from .engine import WindowResult


class Observations:
    """Collects without waiting for the device; only `drain` reads values, when the host reads its loss as well."""

    def __init__(self):
        self._values: dict[str, list[Tensor]] = {}

    def __bool__(self) -> bool:
        return bool(self._values)

    def add(self, scalars: dict[str, Tensor]) -> None:
        for name, value in scalars.items():
            self._values.setdefault(name, []).append(value.detach())

    def add_result(self, result: WindowResult) -> None:
        if result.perturbed_loss is None:
            return
        self.add(
            {
                "sam/perturbed_loss": result.perturbed_loss,
                "sam/sharpness": result.perturbed_loss - result.loss,
                "sam/ascent_grad_norm": result.ascent_grad_norm,
            }
        )

    def drain(self, device: torch.device, ranks: int) -> dict[str, float]:
        """Means since the last call, name -> value. With several `ranks`, all of them have to call it."""
        values, self._values = self._values, {}
        means = torch.stack(
            [torch.stack([value.to(device, torch.float32) for value in series]).mean() for series in values.values()]
        )
        if ranks > 1:
            dist.all_reduce(means)
            means /= ranks
        return dict(zip(values, means.tolist(), strict=True))
