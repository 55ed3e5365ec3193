"""Which windows a host reads: its own, or for a method that looks one ahead those of a stream, dealt to pairs."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch

from ..engine import MicroBatch, Window
from ..parallel.data import PairLoading, WindowStream, as_window
from ..restore import brought_back


class WindowsMixin:
    """The part of [`SAMTrainerMixin`] that reads data."""

    _stream: WindowStream | None = None
    # The window after the present one, as the last update saw it.
    _upcoming: Window = ()

    @contextmanager
    def _shards_for_ranks(self) -> Iterator[None]:
        accelerator = self.accelerator
        with brought_back(partial(setattr, self, "accelerator", accelerator)):
            self.accelerator = PairLoading(accelerator, self._pairs)
            yield

    def get_train_dataloader(self) -> Any:
        with self._shards_for_ranks() if self.sam_method.needs_upcoming_window else nullcontext():
            return super().get_train_dataloader()

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device, *args: Any, **kwargs: Any
    ) -> tuple[list, Any]:
        if not self.sam_method.needs_upcoming_window:
            return super().get_batch_samples(epoch_iterator, num_batches, device, *args, **kwargs)
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

    def _micro_batch(self, inputs: Any, num_items_in_batch: Any) -> MicroBatch:
        """The one that the update before has already seen, or a new one."""
        for micro_batch in self._upcoming:
            if micro_batch.inputs is inputs:
                return micro_batch
        return MicroBatch(inputs, num_items_in_batch, getattr(self, "current_gradient_accumulation_steps", 1))

    def _look_ahead(self) -> Window | None:
        if self._stream is None or self._stream.upcoming is None:
            return None
        self._upcoming = as_window(*self._stream.upcoming)
        return self._upcoming

    def _close_stream(self) -> None:
        self._upcoming = ()
        if self._stream is not None:
            self._stream.close()
            self._stream = None
