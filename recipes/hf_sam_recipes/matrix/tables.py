"""The tables of the report, in Markdown."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from .benchmark import BenchmarkTask
from .choice import best_value, read_trials
from .records import FAILED, last_error
from .study import Study, Value, cost
from .study_file import Choice
from .summary import Difference, Mean, average_over, mean, paired_difference


MISSING = "missing"
Scores = Callable[[BenchmarkTask, str], Mapping[int, float]]


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def grid(study: Study, columns: Mapping[str, Callable[[BenchmarkTask | None], str]], average: bool = False) -> str:
    """Task × column. A column gives the cell of a task and, with `average`, that of the average over tasks, `None`."""
    rows = [[title_of(study, task), *(cell(task) for cell in columns.values())] for task in study.tasks]
    if average and len(rows) > 1:
        rows.append([f"average of {len(rows)}", *(cell(None) for cell in columns.values())])
    return markdown(["task", *columns], rows)


def score_table(
    study: Study, link: Callable[[BenchmarkTask, str], str] | None = None, scores: Scores | None = None
) -> str:
    """Task × method, the metric in per cent, or other scores than the usual. `link` gives a cell's records."""
    scores, published = scores or study.scores, not scores and any(task.published for task in study.tasks)

    def cell(method: str, task: BenchmarkTask | None) -> str:
        if task is None:
            average, gap = _averages(study, method, scores)
            return (_mean(mean(list(average.values())), "{:.2f}") or "") + gap
        shown = _mean(mean(list(scores(task, method).values())), "{:.2f}")
        shown = MISSING if shown is None else f"[{shown}]({link(task, method)})" if link else shown
        return shown + _gaps(study, task, method, scores)

    columns = {"metric": lambda task: task.metric_title if task else ""}
    columns |= {method: partial(cell, method) for method in study.methods}
    if published:
        columns[study.benchmark.published_by] = lambda task: (task and task.published) or "-"
    return grid(study, columns, average=True)


def difference_table(
    study: Study, baseline: str, scores: Scores | None = None, form: str = "{:+.2f}", average: bool = True
) -> str:
    """Task × method, the difference of the scores, or of other numbers, to those of another method."""
    # Others publish the difference to AdamW for the same number of epochs.
    published = not scores and baseline == study.benchmark.baseline
    published = published and any(task.published_difference for task in study.tasks)
    scores = scores or study.scores

    def cell(method: str, task: BenchmarkTask | None) -> str:
        if task is None:
            (own, gap), (other, _) = (_averages(study, name, scores) for name in (method, baseline))
            if not own:
                return gap
        else:
            own, other = scores(task, method), scores(task, baseline)
        return difference_cell(paired_difference(own, other), len(study.seeds), form)

    columns = {method: partial(cell, method) for method in study.methods if method != baseline}
    if published:
        columns[study.benchmark.published_difference_by] = lambda task: (task and task.published_difference) or "-"
    return grid(study, columns, average)


def overview_table(studies: Sequence[Study]) -> str:
    """Study and task × method: the score, and the difference to the baseline of the same study."""
    methods = list(dict.fromkeys(method for study in studies for method in study.methods))

    def cell(study: Study, task: BenchmarkTask, method: str) -> str:
        scores = study.scores(task, method)
        shown = (_mean(mean(list(scores.values())), "{:.2f}") or MISSING) + _gaps(study, task, method, study.scores)
        if not scores or method == study.baseline:
            return shown
        difference = paired_difference(scores, study.scores(task, study.baseline))
        return f"{shown}; {difference_cell(difference, len(study.seeds))}"

    rows = [
        [study.name, title_of(study, task), *(cell(study, task, method) for method in methods)]
        for study in studies
        for task in study.tasks
    ]
    return markdown(["study", "task", *methods], rows)


def number_table(study: Study, value: Value, form: str, relative: bool = False) -> str:
    """Task × method, the mean over seeds of any number of a run; `relative` adds its ratio to the baseline."""

    def cell(method: str, task: BenchmarkTask) -> str:
        values = study.values(task, method, value)
        ratio = _ratio(values, study.values(task, study.baseline, value))
        shown = _mean(mean(list(values.values())), form) or MISSING
        shown += f" ({ratio:.2f}×)" if relative and ratio is not None else ""
        return shown + _part_of(len(values), study)

    return grid(study, {method: partial(cell, method) for method in study.methods})


def _ratio(values: Mapping[int, float], reference: Mapping[int, float]) -> float | None:
    """Of the means over the seeds that both have."""
    seeds = values.keys() & reference.keys()
    total = sum(reference[seed] for seed in seeds)
    return sum(values[seed] for seed in seeds) / total if total else None


def cost_table(study: Study) -> str:
    """Task × method: gradient computations, which do not vary with the seed."""

    def cell(method: str, task: BenchmarkTask) -> str:
        counts = set(study.values(task, method, cost("gradient_computations")).values())
        return ", ".join(f"{count:,}" for count in sorted(counts)) or MISSING

    return grid(study, {method: partial(cell, method) for method in study.methods})


def data_table(study: Study) -> str:
    """How many examples each task was trained and evaluated on, and which of them were subsets."""
    rows = []
    for task in study.tasks:
        train, evaluation = _sizes(study, task)
        rows.append([task.title, _part(train, task.train_size), _part(evaluation, task.eval_size), _rhos(study, task)])
    return markdown(["task", "training examples", "evaluation examples", "rho"], rows)


def choice_table(study: Study, choice: Choice) -> str:
    """Task × value: metric in per cent and loss on the held-out examples, what was chosen in bold."""
    rows = []
    for task in study.benchmark.tasks:
        trials = read_trials(task, choice, study.folder) if task.name in study.file.tasks else {}
        cells = [_trial(*trials.get(value, ()), bold=value == best_value(choice, trials)) for value in choice.values]
        rows += [[task.title, *cells]] if trials else []
    return markdown(["task", *choice.values], rows) if rows else "No trials yet."


def _trial(metric: float | None = None, loss: float | None = None, *, bold: bool) -> str:
    cell = "-" if metric is None or loss is None else f"{100 * metric:.2f} ({loss:.4f})"
    return f"**{cell}**" if bold else cell


def failure_table(study: Study) -> str:
    """The failed runs with the last line of their errors; empty without any."""
    failed = [record for record in study.records if record["status"] == FAILED]
    rows = [[r["task"], r["method"], str(r["seed"]), f"`{last_error(r)}`"] for r in failed]
    return markdown(["task", "method", "seed", "error"], rows) if rows else ""


def is_subset(study: Study, task: BenchmarkTask) -> bool:
    train, evaluation = _sizes(study, task)
    return any(size < task.train_size for size in train) or any(size < task.eval_size for size in evaluation)


def title_of(study: Study, task: BenchmarkTask) -> str:
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


def _gaps(study: Study, task: BenchmarkTask, method: str, of: Scores) -> str:
    """What is not in a cell: nothing if every seed is."""
    scores, failed = of(task, method), study.failed(task, method)
    not_finite = sorted({record["seed"] for record in study.finished(task, method)} - scores.keys())
    notes = []
    if 0 < len(scores) < len(study.seeds):
        notes.append(f"{len(scores)} of {len(study.seeds)} seeds")
    if not_finite:
        notes.append(f"not finite: seed {', '.join(map(str, not_finite))}")
    if failed:
        notes.append(f"failed: seed {', '.join(map(str, failed))}")
    return f" ({'; '.join(notes)})" if notes else ""


def _averages(study: Study, method: str, scores: Scores) -> tuple[dict[int, float], str]:
    """The average over tasks by seed, and what is not in it."""
    of_tasks = {task.title: scores(task, method) for task in study.tasks}
    missing = [title for title, by_seed in of_tasks.items() if not by_seed]
    if missing:
        return {}, f"{MISSING}: {', '.join(missing)}"
    averages = average_over(list(of_tasks.values()))
    if not averages:
        return {}, f"{MISSING}: no seed has every task"
    return averages, _part_of(len(averages), study)


def _part_of(count: int, study: Study) -> str:
    return f" ({count} of {len(study.seeds)} seeds)" if 0 < count < len(study.seeds) else ""


def _mean(average: Mean | None, form: str) -> str | None:
    if average is None:
        return None
    error = "" if average.error is None else f" ± {form.format(average.error)}"
    return form.format(average.value) + error


def difference_cell(difference: Difference | None, seeds: int, form: str = "{:+.2f}") -> str:
    if difference is None:
        return MISSING
    gap = f" ({difference.count} of {seeds} seeds)" if difference.count < seeds else ""
    if difference.low is None:
        return f"{form.format(difference.value)} (one seed: no interval)"
    return f"{form.format(difference.value)} [{form.format(difference.low)}, {form.format(difference.high)}]{gap}"
