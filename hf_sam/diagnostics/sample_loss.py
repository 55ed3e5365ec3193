"""The mean loss over a fixed sample as a function of the weights: value, gradient, Hessian-vector product."""

import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from accelerate.utils import find_batch_size, send_to_device
from torch import nn
from torch.distributed.tensor import DTensor


LossFunction = Callable[[nn.Module, Any], torch.Tensor]


class SampleLoss:
    """Loss, gradient and Hessian-vector product of the mean loss over the examples of fixed batches.

    Gradients and vectors are lists of tensors shaped like the trainable parameters, in fp32 or wider.
    """

    def __init__(self, model: nn.Module, batches: Iterable[Any], loss_fn: LossFunction | None):
        self.model = model
        self.loss_fn = _model_loss if loss_fn is None else loss_fn
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        if not self.parameters:
            raise ValueError("The model has no parameter with requires_grad=True: unfreeze those to be perturbed.")
        if any(isinstance(p, DTensor) for p in self.parameters):
            raise ValueError("The model's parameters are sharded (DTensor): measure sharpness on an unsharded model.")
        device = self.parameters[0].device
        self.batches = [send_to_device(batch, device) for batch in batches]
        sizes = [find_batch_size(batch) for batch in self.batches]
        if not sizes or None in sizes or 0 in sizes:
            raise ValueError(f"batches must hold examples along the first dimension of their tensors, got {sizes=}.")
        self.shares = [size / sum(sizes) for size in sizes]

    def zeros(self) -> list[torch.Tensor]:
        return [torch.zeros_like(p, dtype=_wide(p)) for p in self.parameters]

    @torch.no_grad()
    def set_weights(self, weights: list[torch.Tensor], offset: list[torch.Tensor] | None = None):
        torch._foreach_copy_(self.parameters, weights if offset is None else torch._foreach_add(offset, weights))

    def loss(self) -> float:
        with torch.no_grad():
            return sum(s * self.loss_fn(self.model, b).item() for s, b in zip(self.shares, self.batches, strict=True))

    def loss_and_gradient(self) -> tuple[float, list[torch.Tensor]]:
        total, gradient = 0.0, self.zeros()
        for share, batch in zip(self.shares, self.batches, strict=True):
            loss = self.loss_fn(self.model, batch)
            parts = torch.autograd.grad(loss, self.parameters, allow_unused=True, materialize_grads=True)
            torch._foreach_add_(gradient, widened(parts), alpha=share)
            total += share * loss.item()
        return total, gradient

    def hessian_vector_product(self, vector: list[torch.Tensor]) -> list[torch.Tensor]:
        product = self.zeros()
        for share, batch in zip(self.shares, self.batches, strict=True):
            loss = self.loss_fn(self.model, batch)
            first = torch.autograd.grad(loss, self.parameters, create_graph=True, allow_unused=True)
            # A parameter that is unused, or in which the loss is linear, has no second derivative to follow.
            used = [
                (g, v.to(g.dtype)) for g, v in zip(first, vector, strict=True) if g is not None and g.requires_grad
            ]
            if not used:
                continue
            outputs, directions = zip(*used, strict=True)
            _require_second_derivative(outputs)
            parts = torch.autograd.grad(
                outputs, self.parameters, directions, allow_unused=True, materialize_grads=True
            )
            torch._foreach_add_(product, widened(parts), alpha=share)
        return product


def _model_loss(model: nn.Module, batch: Any) -> torch.Tensor:
    loss = model(**batch).loss
    if loss is None:
        raise ValueError(
            f"The model returned no loss for a batch with the keys {sorted(batch)}: add labels, or pass loss_fn."
        )
    return loss


def _require_second_derivative(gradients: Iterable[torch.Tensor]):
    """Raise if a node of the gradients' graph cannot be differentiated.

    Left alone, `torch.autograd.grad` raises for some such nodes, but prunes those of `once_differentiable` functions,
    whose inputs are detached: their curvature would silently count as zero.
    """
    waiting = [g.grad_fn for g in gradients]
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        if node.name().endswith(("::Error", "::NotImplemented")):
            raise ValueError(
                "The loss cannot be differentiated twice: one of the model's kernels has no second derivative. Load "
                "the model with attn_implementation='eager' or 'sdpa', and without fused kernels."
            )
        following = {f for f, _ in node.next_functions if f is not None} - seen
        seen |= following
        waiting.extend(following)


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[nn.Module]:
    """The model in eval mode with gradients enabled; afterwards, modes and random number generators as before."""
    # torch.autograd.grad is not supported through the wrapper, whose backward hooks would also communicate.
    if isinstance(model, nn.parallel.DistributedDataParallel):
        model = model.module
    modes = {module: module.training for module in model.modules()}
    # Reading a dataloader draws from the generators: a base seed, a shuffling, an augmentation.
    states = random.getstate(), np.random.get_state()
    devices = sorted({p.device.index for p in model.parameters() if p.device.type != "cpu"})
    device_type = next((p.device.type for p in model.parameters() if p.device.type != "cpu"), "cuda")
    try:
        with torch.random.fork_rng(devices, device_type=device_type), torch.enable_grad():
            yield model.eval()
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        # Not module.train(mode), which would set the children too.
        for module, mode in modes.items():
            module.training = mode


def _wide(tensor: torch.Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)


def widened(tensors: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    return [t.to(_wide(t)) for t in tensors]
