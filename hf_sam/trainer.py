"""The host's hooks, led to a training method. Knows the Trainer, and no arithmetic."""

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn
from transformers import Seq2SeqTrainer, Trainer

from .callbacks import WindowCallback
from .config import SAM_CONFIG_NAME, SAMConfig
from .engine import GradientEngine, MicroBatch, normalization_modules
from .host_passes import HostPasses
from .hub import HubMixin
from .methods import METHODS
from .observations import Observations
from .parallel import Pairs
from .parallel.data import PairLoading, WindowStream, as_window
from .parallel.exchange import broadcast_statistics
from .renamed_weights import load_renamed_weights
from .validation import check_compatibility


logger = logging.getLogger(__name__)

SAM_STATE_NAME = "sam_state.safetensors"


class SAMTrainerMixin(HubMixin):
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
        if sam_config is not None and not isinstance(sam_config, SAMConfig):
            raise ValueError(f"sam_config={sam_config!r}: must be a SAMConfig or None.")
        self.sam_config = SAMConfig() if sam_config is None else sam_config
        super().__init__(*args, **kwargs)
        check_compatibility(self, self.sam_config)
        method = METHODS[self.sam_config.method]
        in_pairs = method.runs_in_pairs and self.args.world_size > 1
        self._pairs = Pairs(self.args.process_index, self.args.world_size) if in_pairs else None
        self.sam_method = method(self.sam_config, self._pairs)
        for callback in self._window_callbacks():
            callback.check(self.sam_method)
        self._passes = HostPasses(self, self.sam_config.same_dropout_mask, self._pairs)
        self._window: list[MicroBatch] = []
        self._upcoming: list[MicroBatch] = []
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
        seen = [micro_batch for micro_batch in self._upcoming if micro_batch.inputs is inputs]
        self._window.append(seen[0] if seen else MicroBatch(inputs, num_items_in_batch, steps))
        if not self.accelerator.sync_gradients:
            return torch.zeros((), device=self.args.device)

        window, self._window = self._window, []
        upcoming = None
        if self._stream is not None and self._stream.upcoming is not None:
            self._upcoming = upcoming = as_window(*self._stream.upcoming)
        self._passes.turn_of(window)
        if callable(getattr(self.optimizer, "train", None)):
            # An optimizer that evaluates at averages of the weights puts them away before any weight is displaced.
            self.optimizer.train()
        engine = self._engine(model, window, kwargs)
        for callback in self._window_callbacks():
            self._observations.add(callback.on_window(engine, window, self.sam_method, self.state.global_step))
        result = self.sam_method.window_gradient(engine, window, upcoming)
        self._observations.add_result(result)
        # The engine has counted what was really computed, and the loop goes on to count its estimate for this window.
        self.current_flos -= sum(self.floating_point_ops(micro_batch.inputs) for micro_batch in window)
        statistics = normalization_modules(model)
        if statistics and self.args.world_size > 1:
            broadcast_statistics(statistics, source=self.sam_method.rank_of_statistics)
        return result.loss

    def _window_callbacks(self) -> list[WindowCallback]:
        return [callback for callback in self.callback_handler.callbacks if isinstance(callback, WindowCallback)]

    def _engine(self, model: nn.Module, window: list[MicroBatch], kwargs: dict[str, Any]) -> GradientEngine:
        host_step, flos_of = super().training_step, super().floating_point_ops

        def run_micro_batch(micro_batch: MicroBatch) -> Tensor:
            self.current_gradient_accumulation_steps = micro_batch.accumulation_steps
            self.current_flos += flos_of(micro_batch.inputs)
            items = micro_batch.num_items_in_batch
            # Where the host multiplies by the number of ranks, the gradient is averaged over half of them, and what it
            # gathers is what the ranks at the same window have.
            with self._shards_for_ranks() if self._pairs else nullcontext():
                return self._passes.run(lambda inputs: host_step(model, inputs, items, **kwargs), micro_batch)

        return GradientEngine(
            model=model,
            optimizer=getattr(self.optimizer, "optimizer", self.optimizer),
            run_micro_batch=run_micro_batch,
            no_sync=partial(self.accelerator.no_sync, model=model),
            device=self.args.device,
            passes=partial(self._passes.of, current=window),
            scaler=self.accelerator.scaler,
        )

    def _prepare_inputs(self, *args: Any, **kwargs: Any) -> Any:
        return self._passes.prepare(partial(super()._prepare_inputs, *args, **kwargs))

    @contextmanager
    def _shards_for_ranks(self) -> Iterator[None]:
        accelerator = self.accelerator
        self.accelerator = PairLoading(accelerator, self._pairs)
        try:
            yield
        finally:
            self.accelerator = accelerator

    # ---- a run ----

    def _inner_training_loop(self, *args: Any, **kwargs: Any) -> Any:
        self._forget_run()
        try:
            return super()._inner_training_loop(*args, **kwargs)
        finally:
            self._forget_run()

    def _forget_run(self) -> None:
        self._window, self._upcoming, self._observations = [], [], Observations()
        self._passes = HostPasses(self, self.sam_config.same_dropout_mask, self._pairs)
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
            self._passes.tell_partner()
            logs |= self._observations.drain(self.args.device, self.args.world_size)
        super().log(logs, *args, **kwargs)

    # ---- checkpoints ----

    def _save(self, output_dir: str | None = None, *args: Any, **kwargs: Any) -> None:
        super()._save(output_dir, *args, **kwargs)
        if self.args.should_save:
            self.sam_config.save_pretrained(self.args.output_dir if output_dir is None else output_dir)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        names = {weight: name for name, weight in self.model.named_parameters()}
        state = self.sam_method.state_dict(names)
        if state and self.args.should_save:
            safetensors.torch.save_file(
                {name: value.contiguous() for name, value in state.items()}, os.path.join(output_dir, SAM_STATE_NAME)
            )

    def _load_from_checkpoint(self, checkpoint: str, *args: Any, **kwargs: Any) -> None:
        if self._sharded_by_host or not load_renamed_weights(self.model, checkpoint):
            super()._load_from_checkpoint(checkpoint, *args, **kwargs)

    def _load_best_model(self) -> None:
        if self._sharded_by_host or not load_renamed_weights(self.model, self.state.best_model_checkpoint):
            super()._load_best_model()

    @property
    def _sharded_by_host(self) -> bool:
        return self.is_fsdp_enabled or self.is_deepspeed_enabled

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        self._warn_of_other_options(checkpoint)
        path = os.path.join(checkpoint, SAM_STATE_NAME)
        if os.path.isfile(path):
            self.sam_method.load_state_dict(safetensors.torch.load_file(path), dict(self.model.named_parameters()))

    def _warn_of_other_options(self, checkpoint: str) -> None:
        path = os.path.join(checkpoint, SAM_CONFIG_NAME)
        if not os.path.isfile(path):
            return
        # As it stands in the file, which another version may have written: it is only compared.
        with open(path, encoding="utf-8") as file:
            before = json.load(file)
        now = self.sam_config.to_dict()
        for name in sorted(before.keys() | now.keys()):
            if name not in before or name not in now or before[name] != now[name]:
                logger.warning(
                    f"Resuming with SAMConfig.{name}={now.get(name)!r}, where {checkpoint} was trained with "
                    f"{before.get(name)!r}."
                )


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
