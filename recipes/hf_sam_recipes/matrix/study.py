"""The records of one table, as the report looks at them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from .benchmark import Benchmark, BenchmarkTask
from .records import FAILED, FINISHED, RecordStore


Record = dict[str, Any]
Value = Callable[[Record], float | None]


class Study:
    """
    All records in a folder, which have their settings in common.

    Args:
        benchmark (`Benchmark`): The benchmark.
        folder (`Path`): The folder.

    Raises:
        `ValueError`: the records differ in their settings, are of an unknown task, or there are two of one run.
    """

    def __init__(self, benchmark: Benchmark, folder: Path):
        self.benchmark, self.name = benchmark, folder.name
        self.records = RecordStore(folder).read_all()
        known = {task.name: task for task in benchmark.tasks}
        self._by_run: dict[tuple[str, str, int], Record] = {}
        for record in self.records:
            key = (record["task"], record["method"], record["seed"])
            if key in self._by_run:
                raise ValueError(f"{folder}: two records of {key}; a table has one.")
            if record["task"] not in known:
                raise ValueError(f"{folder}: {benchmark.title} has no task {record['task']!r}.")
            if record["meta_info"]["settings"] != self.records[0]["meta_info"]["settings"]:
                raise ValueError(f"{folder}: records with different settings; give each setting a folder of its own.")
            self._by_run[key] = record
        found = {record["task"] for record in self.records}
        self.tasks = [task for task in benchmark.tasks if task.name in found]
        self.absent_tasks = [task for task in benchmark.tasks if task.name not in found]
        found = {record["method"] for record in self.records}
        # The baseline is a column even where it is missing: without it there is no difference.
        self.methods = [method for method in benchmark.methods if method in found | {benchmark.baseline}]
        self.methods += sorted(found - set(benchmark.methods))
        self.absent_methods = [method for method in benchmark.methods if method not in self.methods]
        self.seeds = sorted({record["seed"] for record in self.records})

    def record(self, task: BenchmarkTask, method: str, seed: int) -> Record | None:
        return self._by_run.get((task.name, method, seed))

    def finished(self, task: BenchmarkTask, method: str) -> list[Record]:
        """Finished runs, by seed."""
        records = (self.record(task, method, seed) for seed in self.seeds)
        return [record for record in records if record is not None and record["status"] == FINISHED]

    def failed(self, task: BenchmarkTask, method: str) -> list[int]:
        """Seeds of the failed runs."""
        records = ((seed, self.record(task, method, seed)) for seed in self.seeds)
        return [seed for seed, record in records if record is not None and record["status"] == FAILED]

    def values(self, task: BenchmarkTask, method: str, value: Value) -> dict[int, float]:
        """A number of every finished run, by seed; runs in which it is not finite or was not measured are left out."""
        found = {record["seed"]: value(record) for record in self.finished(task, method)}
        return {seed: number for seed, number in found.items() if number is not None}

    def scores(self, task: BenchmarkTask, method: str) -> dict[int, float]:
        """The metric of the task in per cent, by seed."""
        scores = self.values(task, method, lambda record: record["train_info"]["metrics"][task.metric])
        return {seed: 100 * score for seed, score in scores.items()}

    def meta(self, value: Callable[[Record], Any]) -> list[str]:
        """What `value` finds in the finished runs, each once, sorted."""
        return sorted({str(value(record)) for record in self.records if record["status"] == FINISHED})


def last_epoch(name: str) -> Value:
    """A number of the last epoch, for example `eval_loss`."""
    return lambda record: record["train_info"]["epochs"][-1].get(name)


def cost(name: str) -> Value:
    return lambda record: record["train_info"][name]


def sharpness(record: Record) -> float | None:
    return (record["train_info"]["sharpness"] or {}).get("sharpness")


def unconverged(record: Record) -> bool:
    """Whether the power iteration was still moving by more than its tolerance when it ended."""
    return not ((record["train_info"]["sharpness"] or {}).get("top_eigenvalue") or {}).get("converged", True)


def top_eigenvalue(record: Record) -> float | None:
    return ((record["train_info"]["sharpness"] or {}).get("top_eigenvalue") or {}).get("value")
