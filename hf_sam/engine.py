"""The gradient engine: in goes a window of micro-batches, out comes its gradient in `.grad`, and its loss.

Methods see training through this object alone. It knows how a model is run, not what is done with the gradients.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from accelerate.utils import find_batch_size, slice_tensors
from torch import Tensor, nn
from torch.optim import Optimizer


@dataclass(frozen=True)
class MicroBatch:
    """What the host passes to one `training_step`, with the number of micro-batches by which it scales the loss."""

    inputs: Any
    num_items_in_batch: Tensor | int | None = None
    accumulation_steps: int = 1


Window = Sequence[MicroBatch]


def single_rows(window: Window) -> Iterator[MicroBatch]:
    """Every row of the window's inputs as a micro-batch of its own."""
    for micro_batch in window:
        for row in range(find_batch_size(micro_batch.inputs)):
            yield replace(micro_batch, inputs=slice_tensors(micro_batch.inputs, slice(row, row + 1)))


@dataclass(frozen=True)
class WindowResult:
    """
    Scalars on the device, without loss scale: unperturbed loss, perturbed loss, norm of the ascent gradient. The
    latter two are `None` where nothing was perturbed.
    """

    loss: Tensor
    perturbed_loss: Tensor | None
    ascent_grad_norm: Tensor | None


@dataclass(frozen=True)
class GradientEngine:
    """
    Args:
        model (`nn.Module`): as the training loop passes it on, wrapped for data-parallel training or not.
        optimizer (`Optimizer`): the base optimizer, without any wrapper.
        run_micro_batch (`Callable[[MicroBatch], Tensor]`): the host's forward and backward pass; returns the loss.
        no_sync (`Callable`): context in which gradients stay on their rank.
        device (`torch.device`): where the losses are.
        scaler (`torch.amp.GradScaler`, *optional*): under fp16.
    """

    model: nn.Module
    optimizer: Optimizer
    run_micro_batch: Callable[[MicroBatch], Tensor]
    no_sync: Callable[[], AbstractContextManager]
    device: torch.device
    scaler: Any = None

    @property
    def weights(self) -> list[nn.Parameter]:
        """The trainable parameters, in the order of the model."""
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    @property
    def loss_scale(self) -> Tensor | None:
        """The factor that all gradients carry now, as a scalar on the device; `None` without a scaler."""
        return None if self.scaler is None else self.scaler.scale(torch.ones((), device=self.device))

    def gradient(self, window: Window, synchronize: bool = True, track_statistics: bool = True) -> Tensor:
        """
        Add the gradient of `window` at the current weights to `.grad`; returns the loss, a scalar as the host logs it.

        Args:
            window (`Window`): at least one micro-batch.
            synchronize (`bool`, *optional*, defaults to `True`): average over the data-parallel ranks, in the backward
                pass of the last micro-batch.
            track_statistics (`bool`, *optional*, defaults to `True`): let the running statistics of BatchNorm move.
        """
        loss = torch.zeros((), device=self.device)
        with nullcontext() if track_statistics else frozen_statistics(self.model):
            for position, micro_batch in enumerate(window, start=1):
                last = position == len(window)
                with nullcontext() if synchronize and last else self.no_sync():
                    loss = loss + self.run_micro_batch(micro_batch)
        return loss

    def take_gradients(self) -> dict[Tensor, Tensor]:
        """Hand over what is in `.grad`, weight -> gradient, and leave it empty. Weights without one are absent."""
        gradients = {weight: weight.grad for weight in self.weights if weight.grad is not None}
        for weight in gradients:
            weight.grad = None
        return gradients

    def put_gradients(self, gradients: dict[Tensor, Tensor]) -> None:
        """The opposite of `take_gradients`."""
        for weight, gradient in gradients.items():
            weight.grad = gradient


def normalization_modules(model: nn.Module) -> list[nn.Module]:
    """The modules that keep running statistics (BatchNorm and its relatives)."""
    return [module for module in model.modules() if getattr(module, "track_running_stats", False)]


@contextmanager
def frozen_statistics(model: nn.Module) -> Iterator[None]:
    """Normalise with the statistics of the batch as in training, but leave the running statistics where they are."""
    modules = normalization_modules(model)
    for module in modules:
        module.track_running_stats = False
    try:
        yield
    finally:
        for module in modules:
            module.track_running_stats = True
