"""The tables of the report, in Markdown."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from .benchmark import BenchmarkTask
from .records import FAILED
from .study import Study, Value, cost
from .summary import Difference, Mean, average_over, mean, paired_difference


MISSING = "missing"
# The last line of a traceback, or a mistake of the user.
ERROR_LINE = re.compile(r"error: |[\w.]*(Error|Exception|Interrupt|Exit)\b")


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
    if len(study.tasks) > 1:
        averages = []
        for method in study.methods:
            scores, gap = _averages(study, method)
            cell = _mean(mean(list(scores.values())), "{:.2f}")
            averages.append(gap if cell is None else cell + gap)
        rows.append([f"average of {len(study.tasks)}", "", *averages, *(["-"] if published else [])])
    return markdown(header, rows)


def difference_table(study: Study, baseline: str) -> str:
    """Task × method, the difference of the scores to those of another method."""
    methods = [method for method in study.methods if method != baseline]
    # Others publish the difference to AdamW for the same number of epochs.
    published = baseline == study.benchmark.baseline and any(task.published_difference for task in study.tasks)
    rows = []
    for task in study.tasks:
        cells = _difference_cells(partial(study.scores, task), methods, baseline, len(study.seeds))
        rows.append([_title(study, task), *cells, *([task.published_difference or "-"] if published else [])])
    if len(study.tasks) > 1:
        reference, _ = _averages(study, baseline)
        averages = []
        for method in methods:
            scores, gap = _averages(study, method)
            difference = paired_difference(scores, reference)
            averages.append(_difference(difference, len(study.seeds)) if scores else gap)
        rows.append([f"average of {len(study.tasks)}", *averages, *(["-"] if published else [])])
    header = ["task", *methods, *([study.benchmark.published_difference_by] if published else [])]
    return markdown(header, rows)


def value_difference_table(study: Study, value: Value) -> str:
    """Task × method, the difference of any number of a run to that of the baseline."""
    baseline, *methods = study.methods
    rows = []
    for task in study.tasks:
        values = partial(study.values, task, value=value)
        cells = _difference_cells(values, methods, baseline, len(study.seeds), "{:+.4f}")
        rows.append([_title(study, task), *cells])
    return markdown(["task", *methods], rows)


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
                cell = (_mean(mean(list(scores.values())), "{:.2f}") or MISSING) + _gaps(study, task, method)
                if scores and method != study.benchmark.baseline:
                    cell += f"; {_difference(paired_difference(scores, reference), len(study.seeds))}"
                cells.append(cell)
            rows.append([study.name, _title(study, task), *cells])
    return markdown(["study", "task", *methods], rows)


def number_table(study: Study, value: Value, form: str, relative: bool = False) -> str:
    """Task × method, the mean over seeds of any number of a run; `relative` adds its ratio to the baseline."""
    rows = []
    for task in study.tasks:
        reference = study.values(task, study.methods[0], value)
        cells = []
        for method in study.methods:
            values = study.values(task, method, value)
            cell = _mean(mean(list(values.values())), form) or MISSING
            ratio = _ratio(values, reference)
            if relative and ratio is not None:
                cell += f" ({ratio:.2f}×)"
            if 0 < len(values) < len(study.seeds):
                cell += f" ({len(values)} of {len(study.seeds)} seeds)"
            cells.append(cell)
        rows.append([_title(study, task), *cells])
    return markdown(["task", *study.methods], rows)


def _ratio(values: Mapping[int, float], reference: Mapping[int, float]) -> float | None:
    """Of the means over the seeds that both have."""
    seeds = values.keys() & reference.keys()
    total = sum(reference[seed] for seed in seeds)
    return sum(values[seed] for seed in seeds) / total if total else None


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
    rows = [[r["task"], r["method"], str(r["seed"]), f"`{_error_line(r['error'])}`"] for r in failed]
    return markdown(["task", "method", "seed", "error"], rows) if rows else ""


def _error_line(error: str) -> str:
    """The line with the error itself; torchrun's own comes last and says only that a rank has failed."""
    lines = error.splitlines()
    errors = [line.strip() for line in lines if ERROR_LINE.match(line.strip()) and "ChildFailedError" not in line]
    return errors[-1] if errors else lines[-1]


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
    scores, failed = study.scores(task, method), study.failed(task, method)
    not_finite = sorted({record["seed"] for record in study.finished(task, method)} - scores.keys())
    notes = []
    if 0 < len(scores) < len(study.seeds):
        notes.append(f"{len(scores)} of {len(study.seeds)} seeds")
    if not_finite:
        notes.append(f"not finite: seed {', '.join(map(str, not_finite))}")
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


def _difference_cells(
    by_seed: Callable[[str], Mapping[int, float]],
    methods: Sequence[str],
    baseline: str,
    seeds: int,
    form: str = "{:+.2f}",
) -> list[str]:
    """One cell per method; `by_seed` gives the numbers of a method."""
    reference = by_seed(baseline)
    return [_difference(paired_difference(by_seed(method), reference), seeds, form) for method in methods]


def _difference(difference: Difference | None, seeds: int, form: str = "{:+.2f}") -> str:
    if difference is None:
        return MISSING
    gap = f" ({difference.count} of {seeds} seeds)" if difference.count < seeds else ""
    if difference.low is None:
        return f"{form.format(difference.value)} (one seed: no interval)"
    return f"{form.format(difference.value)} [{form.format(difference.low)}, {form.format(difference.high)}]{gap}"
