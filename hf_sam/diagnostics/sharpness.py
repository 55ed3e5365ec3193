"""How sharp is the loss around the weights a training run ended at?

Two measures, both on a fixed sample and both leaving the model exactly as it was found:

- [`worst_case_sharpness`]: by how much the loss rises at the worst point within a distance rho that several ascent
  steps can find. The quantity that sharpness-aware minimization minimises with a single step
  (Foret et al. 2021, arXiv 2010.01412, equation 1).
- [`hessian_top_eigenvalue`]: the curvature along the steepest direction, by power iteration on Hessian-vector products
  as PyHessian defines it (Yao et al. 2020, arXiv 1912.07145, algorithm 2).

No function here communicates. On several ranks, hand every rank the same batches.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from .sample_loss import LossFunction, SampleLoss, undisturbed


@dataclass(frozen=True)
class Sharpness:
    """What [`worst_case_sharpness`] found.

    Args:
        loss (`float`): Mean loss over the sample at the weights as they are.
        worst_loss (`float`): Largest mean loss found in the rho-ball; not finite if the ascent ran into such a loss.
        sharpness (`float`): `worst_loss - loss`, never negative.
    """

    loss: float
    worst_loss: float
    sharpness: float


@dataclass(frozen=True)
class TopEigenvalue:
    """What [`hessian_top_eigenvalue`] found.

    Args:
        value (`float`): Rayleigh quotient `v·Hv` of the last unit vector `v`.
        residual (`float`): `‖Hv - value·v‖₂`. Some eigenvalue of `H` lies within this distance of `value`.
        iterations (`int`): Hessian-vector products over the whole sample that were computed.
        converged (`bool`): Whether the tolerance was met before the iterations ran out.
    """

    value: float
    residual: float
    iterations: int
    converged: bool


def worst_case_sharpness(
    model: nn.Module,
    batches: Iterable[Any],
    rho: float = 0.05,
    steps: int = 10,
    step_size: float | None = None,
    loss_fn: LossFunction | None = None,
    seed: int = 0,
) -> Sharpness:
    """Worst loss within a distance `rho` of the weights, by normalised and projected gradient ascent.

    With `v_0 = 0` and `L` the mean loss over all examples of the sample, it iterates

        v_{k+1} = Π( v_k + step_size · ∇L(w + v_k) / ‖∇L(w + v_k)‖₂ )

    where `Π` projects onto the L2 ball of radius `rho` over all trainable parameters together, and reports the largest
    `L(w + v_k)` seen. With the default step size `v_1` is the perturbation of SAM, so the value is a lower bound of
    the maximum that is at least as tight as SAM's own. Dropout is off and BatchNorm uses its running statistics.
    Weights come back bit for bit; training mode, random number generators, `.grad` and buffers are left as they were.

    Args:
        model ([`~torch.nn.Module`]): The model. A `DistributedDataParallel` wrapper is looked through.
        batches (`Iterable`): The fixed sample: a dataloader or a list of batches, read once and kept in memory.
        rho (`float`, *optional*, defaults to 0.05): Radius of the ball.
        steps (`int`, *optional*, defaults to 10): Ascent steps; each costs one gradient over the whole sample.
        step_size (`float`, *optional*): Length of one ascent step. Defaults to `rho`.
        loss_fn (`Callable`, *optional*): `loss_fn(model, batch)` returning the mean loss over the examples of the
            batch as a scalar tensor. Defaults to `model(**batch).loss`.
        seed (`int`, *optional*, defaults to 0): Seeds the direction that stands in for a gradient of exactly zero,
            which gives no direction to ascend.

    Returns:
        [`Sharpness`]: Loss at the weights, worst loss found, and their difference.

    Raises:
        ValueError: If `rho`, `steps` or `step_size` is out of range, if the sample is empty or has no batch dimension,
            if the model has no trainable parameters, if they are sharded, or if it returns no loss.

    Example:

    ```python
    >>> import torch
    >>> from types import SimpleNamespace
    >>> from hf_sam.diagnostics import worst_case_sharpness

    >>> class Model(torch.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.w = torch.nn.Parameter(torch.zeros(2))
    ...
    ...     def forward(self, x):
    ...         return SimpleNamespace(loss=((x * self.w) ** 2).sum(-1).mean())

    >>> result = worst_case_sharpness(Model(), [{"x": torch.tensor([[2.0, 1.0]])}], rho=0.5)
    >>> round(result.worst_loss, 2)
    1.0

    ```
    """
    if not (math.isfinite(rho) and rho > 0):
        raise ValueError(f"rho must be a finite number above 0, got {rho}. Try rho=0.05.")
    if step_size is not None and not (math.isfinite(step_size) and step_size > 0):
        raise ValueError(f"step_size must be a finite number above 0, got {step_size}. Leave it out to use rho.")
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}. Try steps=10.")
    step_size = rho if step_size is None else step_size

    with undisturbed(model) as model:
        sample = SampleLoss(model, batches, loss_fn)
        weights = [p.detach().clone() for p in sample.parameters]
        offset = sample.zeros()
        try:
            start, gradient = sample.loss_and_gradient()
            worst = start
            for step in range(steps):
                norm = _norm(gradient)
                if norm == 0:
                    gradient = _random_like(gradient, seed)
                    norm = _norm(gradient)
                torch._foreach_add_(offset, gradient, alpha=step_size / norm)
                length = _norm(offset)
                if length > rho:
                    torch._foreach_mul_(offset, rho / length)
                sample.set_weights(weights, offset)
                if step < steps - 1:
                    loss, gradient = sample.loss_and_gradient()
                else:
                    loss = sample.loss()
                if not math.isfinite(loss):
                    worst = loss
                    break
                worst = max(worst, loss)
        finally:
            sample.set_weights(weights)
    return Sharpness(loss=start, worst_loss=worst, sharpness=worst - start)


def hessian_top_eigenvalue(
    model: nn.Module,
    batches: Iterable[Any],
    max_iterations: int = 100,
    tolerance: float = 1e-3,
    loss_fn: LossFunction | None = None,
    seed: int = 0,
) -> TopEigenvalue:
    """Eigenvalue of largest magnitude of the Hessian of the mean loss, by power iteration.

    From a random unit vector `v` over all trainable parameters, `λ = v·Hv` and `v ← Hv / ‖Hv‖₂` are repeated until `λ`
    changes by less than `tolerance`, relative to its size. The Hessian is that of the loss averaged over the examples
    of the sample; only products `Hv` are formed, each by differentiating the gradient once more. As in PyHessian, the
    eigenvalue of largest *magnitude* is found: far from a minimum it may be negative. Attention runs through the math
    kernel meanwhile, since the fused kernels of `scaled_dot_product_attention` can be differentiated only once.
    Weights are only read; training mode, random number generators, `.grad` and buffers are left as they were.

    Args:
        model ([`~torch.nn.Module`]): The model. A `DistributedDataParallel` wrapper is looked through.
        batches (`Iterable`): The fixed sample: a dataloader or a list of batches, read once and kept in memory.
        max_iterations (`int`, *optional*, defaults to 100): Most Hessian-vector products over the whole sample.
        tolerance (`float`, *optional*, defaults to 1e-3): Relative change of `λ` at which the iteration stops.
        loss_fn (`Callable`, *optional*): `loss_fn(model, batch)` returning the mean loss over the examples of the
            batch as a scalar tensor. Defaults to `model(**batch).loss`.
        seed (`int`, *optional*, defaults to 0): Seeds the first vector.

    Returns:
        [`TopEigenvalue`]: The eigenvalue, how far from an eigenpair the last vector is, and the work it took.

    Raises:
        ValueError: If `max_iterations` or `tolerance` is out of range, if the sample is empty or has no batch
            dimension, if the model has no trainable parameters, if they are sharded, if it returns no loss, or if
            one of its kernels cannot be differentiated twice.

    Example:

    ```python
    >>> import torch
    >>> from hf_sam.diagnostics import hessian_top_eigenvalue

    >>> model = torch.nn.Linear(2, 1, bias=False)
    >>> sample = [(torch.tensor([[3.0, 0.0], [0.0, 1.0]]), torch.zeros(2, 1))]
    >>> result = hessian_top_eigenvalue(model, sample, loss_fn=lambda m, b: (m(b[0]) - b[1]).square().mean())
    >>> round(result.value, 2)
    9.0

    ```
    """
    if max_iterations < 1:
        raise ValueError(f"max_iterations must be at least 1, got {max_iterations}. Try max_iterations=100.")
    if not (math.isfinite(tolerance) and tolerance >= 0):
        raise ValueError(f"tolerance must be a finite number of at least 0, got {tolerance}. Try tolerance=1e-3.")

    with undisturbed(model) as model, sdpa_kernel(SDPBackend.MATH):
        sample = SampleLoss(model, batches, loss_fn)
        vector = _random_like(sample.zeros(), seed)
        torch._foreach_div_(vector, _norm(vector))
        value, iterations, converged = math.inf, 0, False
        while not converged and iterations < max_iterations:
            product = sample.hessian_vector_product(vector)
            iterations += 1
            previous, value = value, _dot(vector, product)
            residual = _norm(torch._foreach_sub(product, torch._foreach_mul(vector, value)))
            norm = _norm(product)
            if not math.isfinite(norm):
                break
            # A zero product means that this random vector, hence almost surely every vector, is in the kernel.
            converged = norm == 0 or abs(value - previous) <= tolerance * abs(value)
            if not converged:
                vector = torch._foreach_div(product, norm)
    return TopEigenvalue(value=value, residual=residual, iterations=iterations, converged=converged)


def _dot(left: list[torch.Tensor], right: list[torch.Tensor]) -> float:
    return sum(t.double().sum().item() for t in torch._foreach_mul(left, right))


def _norm(tensors: list[torch.Tensor]) -> float:
    return math.hypot(*(n.item() for n in torch._foreach_norm(tensors)))


def _random_like(tensors: list[torch.Tensor], seed: int) -> list[torch.Tensor]:
    # Drawn on the CPU, so that the same seed gives the same direction on every device.
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(t.shape, generator=generator, dtype=t.dtype).to(t.device) for t in tensors]
