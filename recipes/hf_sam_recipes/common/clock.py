"""How long updates take, and how many gradients."""

import statistics
import time

import torch
from transformers import TrainerCallback


class UpdateClock(TrainerCallback):
    """
    Seconds of each update, from the end of the one before it (for the first of an epoch: from the start of the epoch),
    so that reading the data counts and the evaluation between two epochs does not.

    Attributes:
        gradients (`int`): for a trainer to count in. A number of the trainer's own would be put back after every pass
            but the one that the host counts.
    """

    def __init__(self):
        self.gradients = 0
        self.first: list[float] = []
        self.later: list[float] = []
        self.seconds_at_step: dict[int, float] = {}
        self._last, self._total, self._starts_epoch = 0.0, 0.0, True

    def on_epoch_begin(self, args, state, control, **kwargs):
        self._last, self._starts_epoch = time.perf_counter(), True

    def on_step_end(self, args, state, control, **kwargs):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        (self.first if self._starts_epoch else self.later).append(now - self._last)
        self._total += now - self._last
        self.seconds_at_step[state.global_step] = self._total
        self._last, self._starts_epoch = now, False

    def seconds_per_update(self) -> float:
        """Median. The first update of an epoch waits for the dataloader to start, and counts only if it is alone."""
        return statistics.median(self.later or self.first)
