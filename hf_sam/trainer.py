"""The host's hooks, led to a training method. Knows the Trainer, and no arithmetic."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Seq2SeqTrainer, Trainer

from .checkpoints import CheckpointMixin
from .config import SAMConfig
from .diagnostics import WindowCallback
from .engine import GradientEngine, MicroBatch, normalization_modules
from .hub import HubMixin
from .methods import METHODS, Update
from .observations import Observations
from .parallel import Pairs
from .parallel.data import PairLoading, WindowStream, as_window
from .parallel.exchange import broadcast_statistics
from .validation import check_compatibility


class SAMTrainerMixin(CheckpointMixin, HubMixin):
    """
    Sharpness-aware training for any subclass of [`~transformers.Trainer`]. Put it first among the bases:

    ```python
    class MyTrainer(SAMTrainerMixin, AnyTrainerSubclass): ...
    ```

    Args:
        *args, **kwargs: of the other base class, unchanged.
        sam_config ([`SAMConfig`], *optional*): `None` means `SAMConfig()`, AdamW-SAM with ρ = 0.05.

    Raises:
        `ValueError`: an option of the Trainer that the method cannot work with; the message names both, and the fix.
    """

    def __init__(self, *args: Any, sam_config: SAMConfig | None = None, **kwargs: Any):
        if any(isinstance(value, SAMConfig) for value in (*args, *kwargs.values())):
            raise ValueError("sam_config: a SAMConfig stands in the place of another argument; write sam_config=...")
        if sam_config is not None and not isinstance(sam_config, SAMConfig):
            raise ValueError(f"sam_config={sam_config!r}: must be a SAMConfig or None.")
        self.sam_config = SAMConfig() if sam_config is None else sam_config
        super().__init__(*args, **kwargs)
        check_compatibility(self, self.sam_config)
        method = METHODS[self.sam_config.method]
        in_pairs = method.runs_in_pairs and self.args.world_size > 1
        self._pairs = Pairs(self.args.process_index, self.args.world_size) if in_pairs else None
        self.sam_method = method(self.sam_config, self._pairs)
        if not self.sam_method.is_stock:
            self.sam_method.choose(self.model)
        for callback in self._window_callbacks():
            callback.check(self.sam_method)
        self._window: list[MicroBatch] = []
        self._stream: WindowStream | None = None
        self._observations = Observations()

    # ---- one update ----

    def training_step(
        self, model: nn.Module, inputs: Any, num_items_in_batch: Tensor | int | None = None, **kwargs: Any
    ) -> Tensor:
        """
        Collects the micro-batches of a window; the last one triggers the method, which leaves its gradient in `.grad`.
        All of the window's loss is returned with that last micro-batch.
        """
        if self.sam_method.is_stock:
            return super().training_step(model, inputs, num_items_in_batch, **kwargs)
        steps = getattr(self, "current_gradient_accumulation_steps", 1)
        self._window.append(MicroBatch(inputs, num_items_in_batch, steps))
        if not self.accelerator.sync_gradients:
            return torch.zeros((), device=self.args.device)

        window, self._window = self._window, []
        upcoming = None
        if self._stream is not None and self._stream.upcoming is not None:
            upcoming = as_window(*self._stream.upcoming)
        if callable(getattr(self.optimizer, "train", None)):
            # An optimizer that evaluates at averages of the weights puts them away before any weight is displaced.
            self.optimizer.train()
        engine = self._engine(model, kwargs)
        for callback in self._window_callbacks():
            self._observations.add(callback.on_window(engine, window, self.sam_method, self.state.global_step))
        rho = self.sam_config.schedule.radius(self.state.global_step, self.state.max_steps, engine.optimizer)
        update = Update(window, rho, upcoming, self.state.global_step, self.state.max_steps)
        result = self.sam_method.update_gradient(engine, update)
        self._observations.add_result(result)
        if self.sam_config.schedule.varies and rho is not None:
            self._observations.add({"sam/rho": torch.tensor(rho)})
        # The engine has counted what was really computed, and the loop goes on to count its estimate for this window.
        self.current_flos -= sum(self.floating_point_ops(micro_batch.inputs) for micro_batch in window)
        statistics = normalization_modules(model)
        if statistics and self.args.world_size > 1:
            broadcast_statistics(statistics, source=self.sam_method.rank_of_statistics)
        return result.loss

    def _window_callbacks(self) -> list[WindowCallback]:
        return [callback for callback in self.callback_handler.callbacks if isinstance(callback, WindowCallback)]

    def _engine(self, model: nn.Module, kwargs: dict[str, Any]) -> GradientEngine:
        host_step, flos_of = super().training_step, super().floating_point_ops

        def run_micro_batch(micro_batch: MicroBatch) -> Tensor:
            self.current_gradient_accumulation_steps = micro_batch.accumulation_steps
            self.current_flos += flos_of(micro_batch.inputs)
            # The host may take labels out of its inputs, and every pass needs them.
            return host_step(model, copy.copy(micro_batch.inputs), micro_batch.num_items_in_batch, **kwargs)

        return GradientEngine(
            model=model,
            optimizer=getattr(self.optimizer, "optimizer", self.optimizer),
            run_micro_batch=run_micro_batch,
            no_sync=partial(self.accelerator.no_sync, model=model),
            device=self.args.device,
            scaler=self.accelerator.scaler,
        )

    def compute_loss(self, model: nn.Module, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        # Where the host, or a subclass, multiplies by the number of ranks, the gradient is averaged over half of them.
        with self._shards_for_ranks() if self._pairs else nullcontext():
            return super().compute_loss(model, inputs, *args, **kwargs)

    @contextmanager
    def _shards_for_ranks(self) -> Iterator[None]:
        accelerator = self.accelerator
        self.accelerator = PairLoading(accelerator, self._pairs)
        try:
            yield
        finally:
            self.accelerator = accelerator

    # ---- a run ----

    def create_scheduler(self, num_training_steps: int, *args: Any, **kwargs: Any) -> Any:
        # Here the host first says how long the run will be.
        if not self.sam_method.is_stock:
            self.sam_config.schedule.check(num_training_steps)
            self.sam_method.choose(self.model)
        return super().create_scheduler(num_training_steps, *args, **kwargs)

    def _inner_training_loop(self, *args: Any, **kwargs: Any) -> Any:
        self._forget_run()
        try:
            return super()._inner_training_loop(*args, **kwargs)
        finally:
            self._forget_run()

    def _forget_run(self) -> None:
        self._window, self._observations = [], Observations()
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        self.sam_method.reset()

    def get_train_dataloader(self) -> Any:
        with self._shards_for_ranks() if self.sam_method.needs_upcoming_window else nullcontext():
            return super().get_train_dataloader()

    def get_batch_samples(self, epoch_iterator: Iterator, num_batches: int, device: torch.device) -> tuple[list, Any]:
        if not self.sam_method.needs_upcoming_window:
            return super().get_batch_samples(epoch_iterator, num_batches, device)
        if self._stream is None:
            self._stream = WindowStream(
                self.callback_handler.train_dataloader,
                partial(self._count_window, super().get_batch_samples),
                seed=self.args.seed if self.args.data_seed is None else self.args.data_seed,
                first_epoch=int(self.state.epoch or 0),
                device=self.args.device,
            )
        window, continues = self._stream.advance(epoch_iterator)
        if not continues:
            self.sam_method.reset()
        return window

    def _count_window(self, host_get_batch_samples: Any, iterator: Iterator) -> tuple[list, Any]:
        steps = self.args.gradient_accumulation_steps
        micro_batches, num_items_in_batch = host_get_batch_samples(iterator, steps, self.args.device)
        if self._pairs and num_items_in_batch is not None and self.args.average_tokens_across_devices:
            # Both ranks of a pair have counted the shard that they share.
            num_items_in_batch = num_items_in_batch / 2
        return micro_batches, num_items_in_batch

    # ---- accounting ----

    def get_total_train_batch_size(self, args: Any) -> int:
        total = super().get_total_train_batch_size(args)
        return total // 2 if self._pairs else total

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        return super().floating_point_ops(inputs) * self.sam_method.gradients_per_update

    def _track_num_input_tokens(self, inputs: dict[str, Any]) -> None:
        before = self.state.num_input_tokens_seen
        super()._track_num_input_tokens(inputs)
        if self._pairs:
            self.state.num_input_tokens_seen = before + (self.state.num_input_tokens_seen - before) // 2

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Adds what the method saw since the last log, as means over updates and ranks, beside the training loss."""
        # All ranks come here together when the control says so; a user's own `log` may come from one rank.
        if self._observations and "loss" in logs and self.control.should_log:
            logs |= self._observations.drain(self.args.device, self.args.world_size)
        super().log(logs, *args, **kwargs)


class SAMTrainer(SAMTrainerMixin, Trainer):
    """
    [`~transformers.Trainer`] with sharpness-aware training. All arguments of `Trainer`, unchanged, then `sam_config`.

    Example:

    ```python
    from hf_sam import SAMConfig, SAMTrainer

    trainer = SAMTrainer(model, args, train_dataset=dataset, sam_config=SAMConfig(method="sam", rho=0.05))
    trainer.train()
    ```
    """


class SAMSeq2SeqTrainer(SAMTrainerMixin, Seq2SeqTrainer):
    """[`~transformers.Seq2SeqTrainer`] with sharpness-aware training."""
