"""Where to perturb: in go the gradients of a list of weights, out comes a displacement of those weights.

Knows neither models nor trainers. Weights that were moved come back by copy, never by subtracting what was added.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor


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


class NormalizedAscent:
    """
    The perturbation of SAM, `ε = ρ · a / (‖a‖₂ + 1e-12)` (Foret et al. 2021, equation 2 with p = 2).

    Args:
        rho (`float`): radius ρ ≥ 0.
    """

    def __init__(self, rho: float):
        self.rho = rho

    def __call__(
        self,
        gradients: Sequence[Tensor],
        weights: Sequence[Tensor],
        loss_scale: Tensor | None = None,
        consume: bool = False,
    ) -> tuple[list[Tensor], Tensor]:
        """
        Args:
            gradients (`Sequence[Tensor]`): the ascent gradient, one tensor for each weight, of the same shape.
            weights (`Sequence[Tensor]`): the weights to displace (unused here; scaled perturbations need them).
            loss_scale (`Tensor`, *optional*): factor that the gradients carry under fp16. It cancels in ε.
            consume (`bool`, *optional*, defaults to `False`): write ε over `gradients` instead of taking new memory.

        Returns:
            `tuple[list[Tensor], Tensor]`: ε, and the norm of the gradient without its loss scale (a scalar).
        """
        norm = global_norm(gradients)
        scale = torch.ones_like(norm) if loss_scale is None else loss_scale.to(norm)
        norm = norm / scale
        factor = self.rho / (norm + EPSILON) / scale
        displacement = list(gradients) if consume else [torch.empty_like(gradient) for gradient in gradients]
        if not consume and displacement:
            torch._foreach_copy_(displacement, gradients)
        by_device = defaultdict(list)
        for tensor in displacement:
            by_device[tensor.device].append(tensor)
        for device, tensors in by_device.items():
            torch._foreach_mul_(tensors, factor.to(device))
        return displacement, norm


@contextmanager
def preserved_weights(weights: Sequence[Tensor]) -> Iterator[None]:
    """Whatever happens to `weights` inside the block, they leave it with their old bits, also after an exception."""
    backup = [torch.empty_like(weight) for weight in weights]
    with torch.no_grad():
        if backup:
            torch._foreach_copy_(backup, weights)
    try:
        yield
    finally:
        with torch.no_grad():
            if backup:
                torch._foreach_copy_(weights, backup)


def displace(weights: Sequence[Tensor], displacement: Sequence[Tensor]) -> None:
    """Add `displacement` to `weights` in place."""
    with torch.no_grad():
        if weights:
            torch._foreach_add_(weights, displacement)
