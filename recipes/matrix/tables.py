"""The tables of the report, in Markdown."""

from collections.abc import Callable, Iterable, Sequence

from .benchmark import BenchmarkTask
from .records import FAILED
from .study import Study, Value, cost
from .summary import Difference, Mean, average_over, mean, paired_difference


MISSING = "missing"


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def score_table(study: Study, link: Callable[[BenchmarkTask, str], str]) -> str:
    """Task × method, the metric in per cent. `link` gives the folder of a cell's records."""
    published = any(task.published for task in study.tasks)
    header = ["task", "metric", *study.methods, *([study.benchmark.published_by] if published else [])]
    rows = []
    for task in study.tasks:
        cells = []
        for method in study.methods:
            cell = _mean(mean(list(study.scores(task, method).values())), "{:.2f}")
            cells.append(MISSING + _gaps(study, task, method) if cell is None else f"[{cell}]({link(task, method)})")
            if cell is not None:
                cells[-1] += _gaps(study, task, method)
        rows.append([_title(study, task), task.metric_title, *cells, *([task.published or "-"] if published else [])])
    averages = []
    for method in study.methods:
        scores, gap = _averages(study, method)
        cell = _mean(mean(list(scores.values())), "{:.2f}")
        averages.append(gap if cell is None else cell + gap)
    rows.append([f"average of {len(study.tasks)}", "", *averages, *(["-"] if published else [])])
    return markdown(header, rows)


def difference_table(study: Study) -> str:
    """Task × method, the difference to the baseline."""
    baseline, *methods = study.methods
    published = any(task.published_difference for task in study.tasks)
    rows = []
    for task in study.tasks:
        reference = study.scores(task, baseline)
        cells = []
        for method in methods:
            difference = paired_difference(study.scores(task, method), reference)
            cells.append(_difference(difference, len(study.seeds)))
        rows.append([_title(study, task), *cells, *([task.published_difference or "-"] if published else [])])
    reference, _ = _averages(study, baseline)
    averages = []
    for method in methods:
        scores, gap = _averages(study, method)
        difference = paired_difference(scores, reference)
        averages.append(_difference(difference, len(study.seeds)) if scores else gap)
    rows.append([f"average of {len(study.tasks)}", *averages, *(["-"] if published else [])])
    header = ["task", *methods, *([study.benchmark.published_difference_by] if published else [])]
    return markdown(header, rows)


def overview_table(studies: Sequence[Study]) -> str:
    """Study and task × method: the score, and the difference to the baseline of the same study."""
    methods = list(dict.fromkeys(method for study in studies for method in study.methods))
    rows = []
    for study in studies:
        for task in study.tasks:
            reference = study.scores(task, study.benchmark.baseline)
            cells = []
            for method in methods:
                scores = study.scores(task, method)
                cell = _mean(mean(list(scores.values())), "{:.2f}") or MISSING
                if scores and method != study.benchmark.baseline:
                    cell += f"; {_difference(paired_difference(scores, reference), len(study.seeds))}"
                cells.append(cell)
            rows.append([study.name, _title(study, task), *cells])
    return markdown(["study", "task", *methods], rows)


def number_table(study: Study, value: Value, form: str, relative: bool = False) -> str:
    """Task × method, the mean over seeds of any number of a run; `relative` adds its ratio to the baseline."""
    rows = []
    for task in study.tasks:
        reference = mean(list(study.values(task, study.methods[0], value).values()))
        cells = []
        for method in study.methods:
            average = mean(list(study.values(task, method, value).values()))
            cell = MISSING if average is None else _mean(average, form)
            if relative and average is not None and reference is not None and reference.value:
                cell += f" ({average.value / reference.value:.2f}×)"
            cells.append(cell)
        rows.append([_title(study, task), *cells])
    return markdown(["task", *study.methods], rows)


def cost_table(study: Study) -> str:
    """Task × method: gradient computations, which do not vary with the seed."""
    rows = []
    for task in study.tasks:
        cells = []
        for method in study.methods:
            counts = sorted(set(study.values(task, method, cost("gradient_computations")).values()))
            cells.append(", ".join(f"{count:,}" for count in counts) or MISSING)
        rows.append([_title(study, task), *cells])
    return markdown(["task", *study.methods], rows)


def data_table(study: Study) -> str:
    """How many examples each task was trained and evaluated on, and which of them were subsets."""
    rows = []
    for task in study.tasks:
        train, evaluation = _sizes(study, task)
        rows.append([task.title, _part(train, task.train_size), _part(evaluation, task.eval_size), _rhos(study, task)])
    return markdown(["task", "training examples", "evaluation examples", "rho"], rows)


def failure_table(study: Study) -> str:
    """The failed runs with the last line of their errors; empty without any."""
    failed = [record for record in study.records if record["status"] == FAILED]
    rows = []
    for record in failed:
        lines = record["error"].splitlines()
        # The very last line only has the exit status.
        rows.append(
            [record["task"], record["method"], str(record["seed"]), f"`{lines[-2] if lines[1:] else lines[-1]}`"]
        )
    return markdown(["task", "method", "seed", "error"], rows) if rows else ""


def is_subset(study: Study, task: BenchmarkTask) -> bool:
    train, evaluation = _sizes(study, task)
    return any(size < task.train_size for size in train) or any(size < task.eval_size for size in evaluation)


def _title(study: Study, task: BenchmarkTask) -> str:
    return f"{task.title} (subset)" if is_subset(study, task) else task.title


def _sizes(study: Study, task: BenchmarkTask) -> tuple[list[int], list[int]]:
    data = [record["meta_info"]["data"] for method in study.methods for record in study.finished(task, method)]
    return sorted({d["train_samples"] for d in data}), sorted({d["eval_samples"]["eval_samples"] for d in data})


def _part(sizes: Sequence[int], official: int) -> str:
    shown = [f"{n:,} of {official:,} (subset)" if n < official else f"{n:,} (whole)" for n in sizes]
    return ", ".join(shown) or MISSING


def _rhos(study: Study, task: BenchmarkTask) -> str:
    rhos = {record["rho"] for method in study.methods for record in study.finished(task, method)} - {None}
    return ", ".join(f"{rho:g}" for rho in sorted(rhos)) or "-"


def _gaps(study: Study, task: BenchmarkTask, method: str) -> str:
    """What is not in a cell: nothing if every seed is."""
    count, failed = len(study.scores(task, method)), study.failed(task, method)
    notes = []
    if 0 < count < len(study.seeds):
        notes.append(f"{count} of {len(study.seeds)} seeds")
    if failed:
        notes.append(f"failed: seed {', '.join(map(str, failed))}")
    return f" ({'; '.join(notes)})" if notes else ""


def _averages(study: Study, method: str) -> tuple[dict[int, float], str]:
    """The average over tasks by seed, and what is not in it."""
    of_tasks = {task.title: study.scores(task, method) for task in study.tasks}
    missing = [title for title, scores in of_tasks.items() if not scores]
    if missing:
        return {}, f"{MISSING}: {', '.join(missing)}"
    averages = average_over(list(of_tasks.values()))
    if not averages:
        return {}, f"{MISSING}: no seed has every task"
    return averages, f" ({len(averages)} of {len(study.seeds)} seeds)" if len(averages) < len(study.seeds) else ""


def _mean(average: Mean | None, form: str) -> str | None:
    if average is None:
        return None
    error = "" if average.error is None else f" ± {form.format(average.error)}"
    return form.format(average.value) + error


def _difference(difference: Difference | None, seeds: int) -> str:
    if difference is None:
        return MISSING
    gap = f" ({difference.count} of {seeds} seeds)" if difference.count < seeds else ""
    if difference.low is None:
        return f"{difference.value:+.2f} (one seed: no interval)"
    return f"{difference.value:+.2f} [{difference.low:+.2f}, {difference.high:+.2f}]{gap}"
