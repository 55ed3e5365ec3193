"""What keeps a failure from spreading: an update happens or leaves no trace, and a message says what went wrong."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Any

from ..engine import GradientEngine
from ..nonfinite import LossWatch, drop_nonfinite_gradient, statistics_of
from ..parallel.failures import follow_timeout, naming_silent_ranks
from ..restore import all_brought_back


class GuardsMixin:
    """The part of [`SAMTrainerMixin`] that is there for what goes wrong."""

    _losses: LossWatch | None = None

    @property
    def _place(self) -> tuple[int, int, timedelta]:
        return self.args.process_index, self.args.world_size, self.args.ddp_timeout_delta

    @property
    def _see_loss(self) -> Any:
        # Under fp16 overflows are part of looking for the loss scale.
        if self._losses is None or self.accelerator.scaler is not None:
            return None
        return partial(self._losses.see, update=self.state.global_step + 1)

    @contextmanager
    def _guarded_update(self, engine: GradientEngine) -> Iterator[None]:
        """Around an update: all of it or nothing, and errors that name a rank or a loss."""
        skips = self.sam_config.skip_nonfinite_updates and engine.scaler is None
        statistics = statistics_of(engine.model) if skips else []
        answering = naming_silent_ranks(*self._place, during=f"update {self.state.global_step + 1}")
        with answering, engine.undone_on_failure():
            yield
            if skips:
                drop_nonfinite_gradient(engine, statistics)
        if self._losses is not None and self.args.logging_nan_inf_filter:
            # The host waits for the loss of every update as well.
            self._losses.report()

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list, Any]:
        if self.state.global_step >= self.state.max_steps and not self.sam_method.is_stock:
            # Resumed after its last update, which the host would follow with another one before it looks.
            self.control.should_training_stop = True
            return [], None
        return super().get_batch_samples(*args, **kwargs)

    def _inner_training_loop(self, *args: Any, **kwargs: Any) -> Any:
        follow_timeout(self.args.ddp_timeout_delta)
        self._losses = LossWatch(self.args.process_index)
        try:
            with all_brought_back():
                return super()._inner_training_loop(*args, **kwargs)
        except BaseException:
            self.model.zero_grad()
            raise
        finally:
            self._losses.report()
            self._losses = None

    def log(self, *args: Any, **kwargs: Any) -> None:
        if self._losses is not None and self.control.should_log:
            self._losses.report()
        super().log(*args, **kwargs)
