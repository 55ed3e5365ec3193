"""Weights that move and come back: in go lists of tensors, out come norms, displaced weights, and their old bits.

Knows neither models nor trainers. Weights that were moved come back by copy, never by subtracting what was added.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from .restore import brought_back


EPSILON = 1e-12


def global_norm(tensors: Sequence[Tensor]) -> Tensor:
    """
    L2 norm over all `tensors` together, a scalar computed in float32 or wider on the device of the first tensor.

    No tensors at all have norm 0. Stays on the device: there is no host synchronisation.
    """
    if not tensors:
        return torch.zeros(())
    groups = defaultdict(list)
    for tensor in tensors:
        groups[tensor.device, tensor.dtype].append(tensor)
    norms = []
    for (_, dtype), group in groups.items():
        norms += torch._foreach_norm(group, 2, dtype=torch.promote_types(dtype, torch.float32))
    device, dtype = norms[0].device, max((norm.dtype for norm in norms), key=lambda d: d.itemsize)
    return torch.linalg.vector_norm(torch.stack([norm.to(device, dtype) for norm in norms]))


def scale(tensors: Sequence[Tensor], factor: Tensor) -> None:
    """Multiply `tensors`, which may be on several devices, in place by one scalar that is on any of them."""
    by_device = defaultdict(list)
    for tensor in tensors:
        by_device[tensor.device].append(tensor)
    for device, there in by_device.items():
        torch._foreach_mul_(there, factor.to(device))


@contextmanager
def preserved_weights(weights: Sequence[Tensor]) -> Iterator[None]:
    """Whatever happens to `weights` inside the block, they leave it with their old bits, also after an exception."""
    backup = [torch.empty_like(weight) for weight in weights]
    with torch.no_grad():
        if backup:
            torch._foreach_copy_(backup, weights)

    def restore() -> None:
        with torch.no_grad():
            if backup:
                torch._foreach_copy_(weights, backup)

    with brought_back(restore):
        yield


def displace(weights: Sequence[Tensor], displacement: Sequence[Tensor]) -> None:
    """Add `displacement` to `weights` in place."""
    with torch.no_grad():
        if weights:
            torch._foreach_add_(weights, displacement)


@torch.no_grad()
def remove_scale(gradients: Iterable[Tensor], loss_scale: Tensor | None) -> None:
    """Divide `gradients` in place by the factor that they carry under fp16; `None` is none."""
    if loss_scale is None:
        return
    by_device = defaultdict(list)
    for gradient in gradients:
        by_device[gradient.device].append(gradient)
    for device, there in by_device.items():
        torch._foreach_div_(there, loss_scale.to(device))
