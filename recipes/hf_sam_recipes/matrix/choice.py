"""The choice of an option, such as rho, from the records of its trials."""

from pathlib import Path

from .benchmark import BenchmarkTask
from .records import FINISHED, RecordStore
from .study_file import Choice


# By value: metric and loss on the held-out examples, `None` where they are not finite.
Trials = dict[str, tuple[float | None, float | None]]


def read_trials(task: BenchmarkTask, choice: Choice, folder: Path) -> Trials:
    """The trials of a task that have finished. `folder` is that of the benchmark."""
    store, trials = RecordStore(folder / choice.records), {}
    for value in choice.values:
        record = store.read(choice.trial(task.name, value))
        if record is not None and record["status"] == FINISHED:
            metrics = record["train_info"]["metrics"]
            trials[value] = (metrics[task.metric], metrics["loss"])
    return trials


def best_value(choice: Choice, trials: Trials) -> str | None:
    """
    The value with the best metric on the held-out examples; among equals the lowest loss, then the first in the file.
    `None` if a trial is missing, or no trial has a finite loss: one that diverged has no numbers, and loses.
    """
    finite = [value for value in choice.values if None not in trials.get(value, (None,))]
    if len(trials) < len(choice.values) or not finite:
        return None
    return min(finite, key=lambda value: (-trials[value][0], trials[value][1]))
