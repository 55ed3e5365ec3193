"""The gradient engine: in goes a window of micro-batches, out comes its gradient in `.grad`, and its loss.

Methods see training through this object alone. It knows how a model is run, not what is done with the gradients.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import torch
from accelerate.utils import find_batch_size, recursively_apply
from torch import Tensor, nn
from torch.optim import Optimizer

from .parts import part_of
from .restore import brought_back, undone_on_failure
from .rng import RandomState, preserved_rng
from .weights import global_norm


@dataclass
class Record:
    """
    What the pass over a micro-batch that the host counts has left for the others.

    Args:
        prepared (`list`): each result of the host's `_prepare_inputs`, and where the random streams stood after it if
            it had moved them.
        counted (`bool`): of the first micro-batch of a window: whether the host has counted the window.
        changes (`list`, *optional*): of the first micro-batch of a window: what the host counted and collected before
            the window's turn.
    """

    prepared: list[tuple[Any, Any]] = field(default_factory=list)
    counted: bool = False
    changes: Any = None


@dataclass(frozen=True)
class MicroBatch:
    """What the host passes to one `training_step`, with the number of micro-batches by which it scales the loss."""

    inputs: Any
    num_items_in_batch: Tensor | int | None = None
    accumulation_steps: int = 1
    record: Record = field(default_factory=Record, repr=False, compare=False)


Window = Sequence[MicroBatch]


def single_rows(window: Window) -> Iterator[MicroBatch]:
    """Every row of the window's inputs as a micro-batch of its own."""
    for micro_batch in window:
        rows = find_batch_size(micro_batch.inputs)
        for row in range(rows):
            inputs = recursively_apply(_row_of, micro_batch.inputs, row, rows)
            yield replace(micro_batch, inputs=inputs, record=Record())


def _row_of(tensor: Tensor, row: int, rows: int) -> Tensor:
    return tensor[row : row + 1] if tensor.dim() and len(tensor) == rows else tensor


@dataclass(frozen=True)
class WindowResult:
    """
    Scalars on the device, without loss scale: unperturbed loss, perturbed loss, norm of the ascent gradient. The
    latter two are `None` where nothing was perturbed, or where the only loss is that of the perturbed weights.
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
        passes (`Callable[[Window, bool], ContextManager]`): around all passes for one gradient of a window; whether
            the host counts it.
        scaler (`torch.amp.GradScaler`, *optional*): under fp16.
        see (`Callable[[str, Tensor], None]`, *optional*): is shown the name and the loss of each pass.
        ascent_fraction (`float`, *optional*, defaults to 1.0): the part of a window that ascent gradients are of.
        ascent_loss (`Callable`, *optional*): context in which passes return the usual loss, with the gradient of the
            loss that ascent gradients are taken of.
    """

    model: nn.Module
    optimizer: Optimizer
    run_micro_batch: Callable[[MicroBatch], Tensor]
    no_sync: Callable[[], AbstractContextManager]
    device: torch.device
    passes: Callable[[Window, bool], AbstractContextManager] = lambda window, counted: nullcontext()
    scaler: Any = None
    see: Callable[[str, Tensor], None] | None = None
    ascent_fraction: float = 1.0
    ascent_loss: Callable[[], AbstractContextManager] = nullcontext

    @cached_property
    def weights(self) -> list[Tensor]:
        """The trainable weights: those of the optimizer, in the order of the model, then what the model has not."""
        stepped = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        of_model = list(self.model.parameters())
        ours, known = set(stepped), set(of_model)
        weights = [weight for weight in of_model if weight in ours]
        return [w for w in [*weights, *(w for w in stepped if w not in known)] if w.requires_grad]

    @cached_property
    def _with_gradients(self) -> list[Tensor]:
        """As `weights`, and what the model trains but the optimizer does not step, which the host's clipping sees."""
        ours = set(self.weights)
        return [*self.weights, *(w for w in self.model.parameters() if w.requires_grad and w not in ours)]

    @property
    def loss_scale(self) -> Tensor | None:
        """The factor that all gradients carry now, as a scalar on the device; `None` without a scaler."""
        return None if self.scaler is None else self.scaler.scale(torch.ones((), device=self.device))

    @property
    def will_step(self) -> bool:
        """Whether the optimizer will step with what is in `.grad`. A scaler skips an update that is not finite."""
        if self.scaler is None:
            return True
        return bool(global_norm([weight.grad for weight in self.weights if weight.grad is not None]).isfinite())

    def gradient(
        self,
        window: Window,
        synchronize: bool = True,
        track_statistics: bool = True,
        counted: bool | None = None,
        ascent: bool = False,
    ) -> Tensor:
        """
        Add the gradient of `window` at the current weights to `.grad`; returns the loss, a scalar as the host logs it.

        Args:
            window (`Window`): at least one micro-batch.
            synchronize (`bool`, *optional*, defaults to `True`): average over the data-parallel ranks, in the backward
                pass of the last micro-batch.
            track_statistics (`bool`, *optional*, defaults to `True`): let the running statistics of BatchNorm move.
            counted (`bool`, *optional*, defaults to `track_statistics`): let the host count this pass, and keep what
                it collects for its log. One pass over each whole window is.
            ascent (`bool`, *optional*, defaults to `False`): the gradient is for a perturbation and nothing else, so
                it is that of `ascent_loss` on a part of the window.
        """
        loss = torch.zeros((), device=self.device)
        part = part_of(window, self.ascent_fraction) if ascent else window
        counted = (track_statistics if counted is None else counted) and part is window
        statistics = nullcontext() if track_statistics else frozen_statistics(self.model)
        with statistics, self.ascent_loss() if ascent else nullcontext(), self.passes(window, counted):
            for position, micro_batch in enumerate(part, start=1):
                last = position == len(part)
                with nullcontext() if synchronize and last else self.no_sync():
                    loss = loss + self.run_micro_batch(micro_batch)
        if self.see is not None:
            self.see("unperturbed" if track_statistics else "perturbed", loss)
        return loss

    def idle(self, window: Window, passes: int) -> None:
        """
        Run `passes` passes that count for nothing, while other ranks have more micro-batches: what the host's loss
        exchanges between all ranks is exchanged as often by each. Gradients and random streams stay as they are.
        """
        if passes <= 0:
            return
        gradients = self.take_gradients()
        with preserved_rng(self.device):
            self.gradient([window[0]] * passes, synchronize=False, track_statistics=False)
        self.take_gradients()
        self.put_gradients(gradients)

    def take_gradients(self) -> dict[Tensor, Tensor]:
        """Hand over what is in `.grad`, weight -> gradient, and leave it empty. Weights without one are absent."""
        gradients = {weight: weight.grad for weight in self._with_gradients if weight.grad is not None}
        for weight in gradients:
            weight.grad = None
        return gradients

    @contextmanager
    def undone_on_failure(self) -> Iterator[None]:
        """After any exception in the block weights, flags and random streams are where they were, and no gradients."""
        streams = RandomState.capture(self.device)

        def undo() -> None:
            streams.restore()
            self.take_gradients()

        with undone_on_failure(undo):
            yield

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

    def track(tracks: bool) -> None:
        for module in modules:
            module.track_running_stats = tracks

    with brought_back(partial(track, True)):
        track(False)
        yield
