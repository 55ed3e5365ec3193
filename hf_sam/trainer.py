"""The host's hooks, led to a training method. Knows the Trainer, and no arithmetic."""

from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Seq2SeqTrainer, Trainer

from .ascent_losses import ASCENT_LOSSES, AscentPass
from .checkpoints import CheckpointMixin, WholeCheckpointMixin
from .config import SAMConfig
from .diagnostics import WindowCallback
from .engine import GradientEngine, MicroBatch, Window, normalization_modules
from .host_classes import check_order_of_bases
from .hosts.accounting import AccountingMixin
from .hosts.guards import GuardsMixin
from .hosts.options import OptionsMixin
from .hosts.passes import HostPasses
from .hosts.windows import WindowsMixin
from .hub import HubMixin
from .methods import METHODS, Update
from .observations import Observations
from .parallel import Pairs
from .parallel.exchange import broadcast_statistics
from .rng import Draws, preserved_rng
from .validation import check_compatibility


class SAMTrainerMixin(
    GuardsMixin, OptionsMixin, WindowsMixin, AccountingMixin, WholeCheckpointMixin, CheckpointMixin, HubMixin
):
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

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        check_order_of_bases(cls, SAMTrainerMixin)

    def __init__(self, *args: Any, sam_config: SAMConfig | None = None, **kwargs: Any):
        if any(isinstance(value, SAMConfig) for value in (*args, *kwargs.values())):
            raise ValueError("sam_config: a SAMConfig stands in the place of another argument; write sam_config=...")
        if sam_config is not None and not isinstance(sam_config, SAMConfig):
            raise ValueError(f"sam_config={sam_config!r}: must be a SAMConfig or None.")
        self._sam_config = SAMConfig() if sam_config is None else sam_config
        self._passes = HostPasses(self)
        super().__init__(*args, **kwargs)
        self._choose_method(self._sam_config)
        self._window: list[MicroBatch] = []
        self._observations = Observations()

    def _choose_method(self, config: SAMConfig) -> None:
        self._check_options(config)
        method = METHODS[config.method]
        in_pairs = method.runs_in_pairs and self.args.world_size > 1
        self._pairs = Pairs(*self._place) if in_pairs else None
        self.sam_method = method(config, self._pairs)
        if not self.sam_method.is_stock:
            self.sam_method.choose(self.model)
        for callback in self._window_callbacks():
            callback.check(self.sam_method)
        self._ascent_pass = AscentPass(ASCENT_LOSSES[config.ascent_loss](config.ascent_loss_options))

    def _check_options(self, config: SAMConfig) -> None:
        check_compatibility(self, config, SAMTrainerMixin.training_step)

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
        self._window.append(self._micro_batch(inputs, num_items_in_batch))
        if not self.accelerator.sync_gradients:
            return torch.zeros((), device=self.args.device)

        window, self._window = self._window, []
        upcoming = self._look_ahead()
        self._passes.turn_of(window)
        if callable(getattr(self.optimizer, "train", None)):
            # An optimizer that evaluates at averages of the weights puts them away before any weight is displaced.
            self.optimizer.train()
        engine = self._engine(model, window, kwargs)
        if self._is_resumed:
            self._is_resumed = False
            self._arrange_buckets(engine, window)
        with self._guarded_update(engine):
            return self._update(engine, window, upcoming)

    def _update(self, engine: GradientEngine, window: Window, upcoming: Window | None) -> Tensor:
        for callback in self._window_callbacks():
            self._observations.add(callback.on_window(engine, window, self.sam_method, self.state.global_step))
        step, steps = self.state.global_step, self.state.max_steps
        draws = Draws(self.args.seed, step, self.args.process_index)
        rho = self.sam_config.schedule.radius(step, steps, engine.optimizer, draws)
        update = Update(window, rho, upcoming, step, steps, draws)
        result = self.sam_method.update_gradient(engine, update)
        self._observations.add_result(result)
        if (self.sam_config.schedule.varies or self._has_changed) and rho is not None:
            self._observations.add({"sam/rho": torch.tensor(rho)})
        # The engine has counted what was really computed, and the loop goes on to count its estimate for this window.
        self.current_flos -= sum(self.floating_point_ops(micro_batch.inputs) for micro_batch in window)
        statistics = normalization_modules(engine.model)
        if statistics and self.args.world_size > 1:
            broadcast_statistics(statistics, source=self.sam_method.rank_of_statistics)
        return result.loss

    def _window_callbacks(self) -> list[WindowCallback]:
        return [callback for callback in self.callback_handler.callbacks if isinstance(callback, WindowCallback)]

    def _engine(self, model: nn.Module, window: Window, kwargs: dict[str, Any]) -> GradientEngine:
        host_step = super().training_step

        def run_micro_batch(micro_batch: MicroBatch) -> Tensor:
            self.current_gradient_accumulation_steps = micro_batch.accumulation_steps
            self.current_flos += self._host_floating_point_ops(micro_batch.inputs)
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
            see=self._see_loss,
            ascent_fraction=self.sam_config.ascent_fraction,
            ascent_loss=self._ascent_pass.active,
        )

    def _prepare_inputs(self, *args: Any, **kwargs: Any) -> Any:
        return self._passes.prepare(partial(super()._prepare_inputs, *args, **kwargs))

    def compute_loss(self, model: nn.Module, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        over_items = self.model_accepts_loss_kwargs or self.compute_loss_func is not None
        return self._ascent_pass.compute(super().compute_loss, over_items, model, inputs, *args, **kwargs)

    def _arrange_buckets(self, engine: GradientEngine, window: Window) -> None:
        """
        After its first backward pass DistributedDataParallel puts gradients into other buckets, in which three or more
        ranks add them up in another order. A pass that counts for nothing lets a resumed run begin as the run before
        went on.
        """
        model = getattr(engine.model, "_orig_mod", engine.model)
        keeps_buckets = getattr(model, "find_unused_parameters", True) and not getattr(model, "static_graph", False)
        if self.args.world_size < 3 or keeps_buckets:
            return
        with preserved_rng(engine.device):
            self.sam_method.gradient_at_weights(engine, window[-1:])

    # ---- a run ----

    def create_scheduler(self, num_training_steps: int, *args: Any, **kwargs: Any) -> Any:
        # Here the host first says how long the run will be.
        if not self.sam_method.is_stock:
            self.sam_config.schedule.check(num_training_steps)
            self.sam_method.choose(self.model)
        return super().create_scheduler(num_training_steps, *args, **kwargs)

    def _inner_training_loop(self, *args: Any, **kwargs: Any) -> Any:
        if self.sam_method.config is not self._sam_config:
            self._choose_method(self._sam_config)
        self._forget_run()
        if not self.sam_method.is_stock:
            # `model_init` may have made another model.
            self.sam_method.choose(self.model)
        self._in_training_loop = True
        try:
            with self._recorded_with_options():
                return super()._inner_training_loop(*args, **kwargs)
        finally:
            self._in_training_loop = False
            self._forget_run()

    def _forget_run(self) -> None:
        self._window, self._observations = [], Observations()
        self._passes = HostPasses(self, self._pairs)
        self._is_resumed = self._has_changed = False
        self._close_stream()
        self.sam_method.reset()

    def _load_optimizer_and_scheduler(self, checkpoint: str | None, *args: Any, **kwargs: Any) -> None:
        super()._load_optimizer_and_scheduler(checkpoint, *args, **kwargs)
        self._is_resumed = checkpoint is not None


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
