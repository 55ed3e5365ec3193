"""Which process reads which window: in go a data loader and the pairs, out come shards that both ranks of a pair
share, and the stream of windows, one ahead.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.data_loader import prepare_data_loader
from accelerate.utils import recursively_apply
from torch.utils.data import DataLoader, IterableDataset
from transformers.trainer_utils import has_length

from ..engine import MicroBatch, Window
from ..rng import RandomState, preserved_rng, seed_all
from .topology import Pairs


class PairLoading:
    """
    Stands in for the `Accelerator` where data is dealt, counted and gathered: there are K shards instead of N, the
    same for both ranks of a pair, and what a pass over a window gathers is of the K ranks that look at that window.
    Everything else is passed on, also what the host sets (sentence-transformers sets `even_batches`).

    Args:
        accelerator (`Accelerator`): the real one.
        pairs ([`Pairs`], *optional*): `None` where each rank reads a shard of its own.
    """

    def __init__(self, accelerator: Any, pairs: Pairs | None):
        own = {
            "_accelerator": accelerator,
            "_pairs": pairs,
            "_shard": accelerator.process_index if pairs is None else pairs.index,
            "num_processes": accelerator.num_processes if pairs is None else pairs.count,
        }
        vars(self).update(own)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._accelerator, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._accelerator, name, value)

    def gather(self, tensor: Any) -> Any:
        """`Accelerator.gather` over the ranks of one role."""
        return recursively_apply(self._gather_one, tensor, error_on_other_type=True)

    def gather_for_metrics(self, *args: Any, **kwargs: Any) -> Any:
        return Accelerator.gather_for_metrics(self, *args, **kwargs)

    def reduce(self, tensor: Any, reduction: str = "sum", scale: float = 1.0) -> Any:
        """`Accelerator.reduce` over the ranks of one role."""
        return recursively_apply(lambda one: self._reduce_one(one, reduction, scale), tensor, error_on_other_type=True)

    def _gather_one(self, tensor: torch.Tensor) -> torch.Tensor:
        tensor = (tensor[None] if tensor.dim() == 0 else tensor).contiguous()
        if self.num_processes == 1:
            return tensor.clone()
        parts = [torch.empty_like(tensor) for _ in range(self.num_processes)]
        dist.all_gather(parts, tensor, group=self._pairs.role_group)
        return torch.cat(parts)

    def _reduce_one(self, tensor: torch.Tensor, reduction: str, scale: float) -> torch.Tensor:
        tensor = tensor.clone()
        if self.num_processes > 1:
            dist.all_reduce(tensor, group=self._pairs.role_group)
        if reduction == "mean":
            tensor /= self.num_processes
        return tensor * scale

    def prepare(self, *objects: Any, **kwargs: Any) -> Any:
        prepared = tuple(
            self.prepare_data_loader(one) if isinstance(one, DataLoader) else self._accelerator.prepare(one, **kwargs)
            for one in objects
        )
        return prepared if len(prepared) > 1 else prepared[0]

    def prepare_data_loader(self, loader: DataLoader, device_placement: bool | None = None, **_: Any) -> DataLoader:
        accelerator = self._accelerator
        if getattr(loader, "_is_accelerate_prepared", False):
            return loader
        if isinstance(loader.worker_init_fn, partial) and "rank" in loader.worker_init_fn.keywords:
            # The workers of both ranks must draw the same augmentations.
            loader.worker_init_fn.keywords["rank"] = self._shard
        prepared = prepare_data_loader(
            loader,
            accelerator.device,
            num_processes=self.num_processes,
            process_index=self._shard,
            split_batches=accelerator.split_batches,
            put_on_device=accelerator.device_placement if device_placement is None else device_placement,
            rng_types=["generator"],
            # Rank 0 cannot read for the others, which are at different windows; and the loader that would do so fails
            # on a stream that has ended.
            dispatch_batches=False if isinstance(loader.dataset, IterableDataset) else accelerator.dispatch_batches,
            even_batches=accelerator.even_batches,
            use_seedable_sampler=accelerator.use_seedable_sampler,
            data_seed=accelerator.dataloader_config.data_seed,
            non_blocking=accelerator.non_blocking,
            use_stateful_dataloader=accelerator.use_stateful_dataloader,
        )
        accelerator._dataloaders.append(prepared)
        return prepared


class WindowStream:
    """
    The windows of a run of training in order, across the borders of epochs, with the next one always read ahead.

    Data is read with random streams of its own, started anew for each epoch from `seed`: it leaves the streams of the
    model alone, and is the same on all processes that read the same shard, however far ahead of each other they are.

    Args:
        loader (`DataLoader`): the loader over which the training loop iterates.
        fetch (`Callable[[Iterator], tuple[list, Any]]`):
            reads the micro-batches of one window from an iterator, fewer at its end, none after it, and counts items.
        seed (`int`): of the data.
        first_epoch (`int`): number of the epoch in which the run begins (above 0 when it resumes).
        device (`torch.device`): of the model.
    """

    def __init__(
        self,
        loader: DataLoader,
        fetch: Callable[[Iterator], tuple[list, Any]],
        seed: int,
        first_epoch: int,
        device: torch.device,
    ):
        self._loader = loader
        self._fetch_from = fetch
        self._seed = seed
        self._epoch = first_epoch
        self._device = device
        self._random: RandomState | None = None
        # The iterator that the loop made for its present epoch, and the one that windows are read from.
        self._loop_iterator: Iterator | None = None
        self._iterator: Iterator | None = None
        # The window that has been read ahead already belongs to the epoch after the loop's.
        self._crossed = False
        self.upcoming: tuple[list, Any] | None = None

    def advance(self, loop_iterator: Iterator) -> tuple[tuple[list, Any], bool]:
        """
        Args:
            loop_iterator (`Iterator`): what the training loop made of the loader for its present epoch.

        Returns:
            `tuple`: the next window (empty if the stream has ended), and whether it follows the window before, if
            there was one: not after an epoch that the loop left early. `upcoming` then is the window after it.
        """
        continues = True
        if loop_iterator is not self._loop_iterator:
            if not self._crossed:
                # A first epoch, or one after an epoch that a callback stopped: what was read ahead of it is dropped.
                continues = self._loop_iterator is None
                self._epoch += not continues
                self._start_epoch(loop_iterator)
                self.upcoming = self._fetch()
            self._loop_iterator, self._crossed = loop_iterator, False
        current = self.upcoming
        self.upcoming = self._fetch() if current is not None else None
        return current or ([], None), continues

    def close(self) -> None:
        """Stop reading; workers of the loader end."""
        if hasattr(self._iterator, "close"):
            self._iterator.close()
        if self._crossed and hasattr(self._loader, "end"):
            self._loader.end()

    def _start_epoch(self, iterator: Iterator) -> None:
        self._iterator = iterator if has_length(self._loader) else self._chained(iterator)
        with preserved_rng(self._device):
            seed_all(self._seed + self._epoch)
            self._random = RandomState.capture(self._device)

    def _chained(self, iterator: Iterator) -> Iterator:
        """Without a length the loop knows no epochs, only updates: pass follows pass, and no window is cut short."""
        empty = False
        while not empty:
            empty = True
            for micro_batch in iterator:
                empty = False
                yield micro_batch
            iterator = self._next_pass()
            seed_all(self._seed + self._epoch)

    def _next_pass(self) -> Iterator:
        self._epoch += 1
        if hasattr(self._loader, "set_epoch"):
            self._loader.set_epoch(self._epoch)
        # As the training loop does: accelerate does not reach a batch sampler that it has dealt to shards.
        dealt = getattr(getattr(self._loader, "batch_sampler", None), "batch_sampler", None)
        if hasattr(dealt, "set_epoch"):
            dealt.set_epoch(self._epoch)
        return iter(self._loader)

    def _fetch(self) -> tuple[list, Any] | None:
        window = self._read()
        if not window[0] and has_length(self._loader):
            self._crossed = True
            self._start_epoch(self._next_pass())
            window = self._read()
        return window if window[0] else None

    def _read(self) -> tuple[list, Any]:
        with preserved_rng(self._device):
            self._random.restore()
            try:
                return self._fetch_from(self._iterator)
            finally:
                self._random = RandomState.capture(self._device)


def as_window(micro_batches: list, num_items_in_batch: Any) -> Window:
    return [MicroBatch(inputs, num_items_in_batch, len(micro_batches)) for inputs in micro_batches]
