"""One preparation, several passes: the host's training step is run for each gradient, and what it does once for each
micro-batch (preparing or generating inputs, counting steps and tokens, collecting metrics) happens once.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ..engine import MicroBatch, Window
from ..parallel import Pairs, Role
from ..rng import RandomState, seed_all
from .state import HostState, copy_containers, make_changes


class HostPasses:
    """
    Args:
        trainer (`Trainer`): the host.
        pairs ([`Pairs`], *optional*): of a method whose ranks work on different windows.
    """

    def __init__(self, trainer: Any, pairs: Pairs | None = None):
        self._trainer = trainer
        self._pairs = pairs
        self._running: tuple[MicroBatch, bool] | None = None
        self._replayed = 0
        self._counted = False
        # What was counted ahead of its time since the last log, which the partner has not seen.
        self._told: list[list] = []

    @contextmanager
    def of(self, window: Window, counted: bool, current: Window) -> Iterator[None]:
        """
        Around the passes over all of `window` for one gradient.

        Args:
            counted (`bool`): this gradient is the one that the host's counters and metrics see, the unperturbed one.
                What the host does in any other is undone.
            current (`Window`): that of this update. What is counted of a later one is kept until its turn.
        """
        counted = counted and not window[0].record.counted
        now = counted and any(micro_batch is window[0] for micro_batch in current)
        before = None if now else HostState(self._trainer)
        self._counted = counted
        try:
            yield
            if counted:
                window[0].record.counted = True
                window[0].record.changes = None if now else before.changes()
        finally:
            self._counted = False
            if before is not None:
                before.put_back()

    def turn_of(self, window: Window) -> None:
        """The update that `window` belongs to begins."""
        record = window[0].record
        if record.changes is not None:
            make_changes(self._trainer, record.changes)
            if self._pairs is not None:
                self._told.append(record.changes)
            record.changes = None

    def run(self, step: Callable[[Any], Tensor], micro_batch: MicroBatch) -> Tensor:
        """The host's forward and backward pass over `micro_batch`."""
        self._running, self._replayed = (micro_batch, self._counted and not micro_batch.record.prepared), 0
        try:
            return step(copy_containers(micro_batch.inputs))
        finally:
            self._running = None

    def prepare(self, prepare: Callable[[], Any]) -> Any:
        """The host's `_prepare_inputs`, or what it returned when this micro-batch was prepared."""
        if self._running is None:
            return prepare()
        micro_batch, is_first = self._running
        if is_first:
            before = RandomState.capture(self._trainer.args.device)
            prepared = prepare()
            after = RandomState.capture(self._trainer.args.device)
            micro_batch.record.prepared.append((copy_containers(prepared), None if after.same_as(before) else after))
            return prepared
        if self._replayed == len(micro_batch.record.prepared):
            return prepare()
        prepared, after = micro_batch.record.prepared[self._replayed]
        self._replayed += 1
        if after is not None:
            # The stream goes on from what was drawn to prepare, as in one step of the host.
            after.restore()
            if not self._trainer.sam_config.same_dropout_mask:
                seed_all(int(torch.randint(2**62, ())))
        return copy_containers(prepared)

    def tell_partner(self) -> None:
        """A rank whose passes are never counted takes over from its partner what was, since the last call."""
        if self._pairs is None:
            return
        told, self._told = [self._told], []
        source = self._pairs.rank if self._pairs.role is Role.LOOKAHEAD else self._pairs.partner
        dist.broadcast_object_list(told, source, group=self._pairs.pair_group, device=self._trainer.args.device)
        if self._pairs.role is Role.PERTURBED:
            for changes in told[0]:
                make_changes(self._trainer, changes)
