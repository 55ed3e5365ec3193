"""The records of a study, as the report looks at them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..common.names import require_known
from .benchmark import Benchmark, BenchmarkTask
from .records import FAILED, FINISHED, RecordStore, require_whole
from .study_file import RESULTS, StudyFile


Record = dict[str, Any]
Value = Callable[[Record], float | None]


class Study:
    """
    The records of a study.

    Args:
        benchmark (`Benchmark`): The benchmark.
        file (`StudyFile`): What was asked.
        folder (`Path`): Folder of the benchmark, with the records in `results/<study>/`.

    Raises:
        `ValueError`: a record is broken, is not one of this study or has other settings, or there are two of one run.
    """

    def __init__(self, benchmark: Benchmark, file: StudyFile, folder: Path):
        self.benchmark, self.file, self.folder, self.name = benchmark, file, folder, file.name
        records = RecordStore(folder / RESULTS / file.name).read_all()
        self.records = list(records.values())
        metrics = {task.name: (task.metric,) for task in benchmark.tasks}
        self._by_run: dict[tuple[str, str, int], Record] = {}
        for path, record in records.items():
            require_whole(path, record, metrics.get(str(record.get("task")), ()))
            key = (record["task"], record["method"], record["seed"])
            if key in self._by_run:
                raise ValueError(f"{file.name}: two records of {key}; a table has one.")
            require_known(f"{file.name}: record of task", record["task"], file.tasks)
            require_known(f"{file.name}: record of method", record["method"], file.methods)
            file.require_settings(record)
            self._by_run[key] = record
        found = {record["task"] for record in self.records}
        self.tasks = [task for task in benchmark.tasks if task.name in found]
        self.absent_tasks = [task for task in benchmark.tasks if task.name not in found]
        found = {record["method"] for record in self.records}
        # The baseline is a column even where it is missing: without it there is no difference.
        self.baseline = next(iter(file.methods))
        self.methods = [method for method in file.methods if method in found | {self.baseline}]
        wanted = dict.fromkeys([*benchmark.methods, *file.methods])
        self.absent_methods = [method for method in wanted if method not in self.methods]
        found = {record["method"] for record in self.records if record["rho"] is not None}
        self.perturbing = [method for method in self.methods if method in found]
        self.stock_methods = [method for method in self.methods if method not in found]
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

    def stopped_early(self, task: BenchmarkTask, method: str) -> dict[int, float]:
        """
        The metric in per cent after the epoch with the best one on held-out training examples, by seed; among equals
        the lowest loss on them, then the first.
        """

        def score(record: Record) -> float | None:
            epochs = [
                (epoch[held_out], -epoch["eval_holdout_loss"], -place, epoch[f"eval_{task.metric}"])
                for place, epoch in enumerate(record["train_info"]["epochs"])
                if None not in (epoch.get(held_out), epoch.get("eval_holdout_loss"))
            ]
            return max(epochs)[-1] if epochs else None

        held_out = f"eval_holdout_{task.metric}"
        return {seed: 100 * score for seed, score in self.values(task, method, score).items()}

    def meta(self, value: Callable[[Record], Any]) -> list[str]:
        """What `value` finds in the finished runs, each once, sorted."""
        return sorted({str(value(record)) for record in self.records if record["status"] == FINISHED})


def last_epoch(name: str) -> Value:
    """A number of the last epoch, for example `eval_loss`."""
    return lambda record: (record["train_info"]["epochs"] or [{}])[-1].get(name)


def cost(name: str) -> Value:
    return lambda record: record["train_info"][name]


def sharpness(record: Record) -> float | None:
    return (record["train_info"]["sharpness"] or {}).get("sharpness")


def unconverged(record: Record) -> bool:
    """Whether the power iteration was still moving by more than its tolerance when it ended."""
    return not ((record["train_info"]["sharpness"] or {}).get("top_eigenvalue") or {}).get("converged", True)


def top_eigenvalue(record: Record) -> float | None:
    return ((record["train_info"]["sharpness"] or {}).get("top_eigenvalue") or {}).get("value")
