"""The plots of the report: the same records give the same bytes."""

import math
from collections.abc import Callable
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .benchmark import BenchmarkTask
from .study import Record, Study, sharpness
from .summary import Mean, mean


PANEL = (4.2, 3.2)  # inches
PLOTS = {
    "metric": "The metric by method: mean and standard error over seeds, and every run.",
    "losses": "Training loss (solid) and evaluation loss (dashed) after each epoch, mean over seeds.",
    "time": "The metric after each epoch against the seconds spent in training until then, mean over seeds.",
    "sharpness": "The metric against the sharpness at the end, one point per run.",
}


def draw_plots(study: Study, folder: Path) -> dict[str, Path]:
    """Write `<study>-<plot>.png` for every plot into `folder`, which is made, and return the files by plot."""
    folder.mkdir(parents=True, exist_ok=True)
    panels = {"metric": _metric, "losses": _losses, "time": _time, "sharpness": _sharpness}
    files = {}
    # The user's own matplotlibrc must not change the bytes.
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        for name, draw in panels.items():
            files[name] = folder / f"{study.name}-{name}.png"
            _draw(study, draw, files[name])
    return files


def _draw(study: Study, draw: Callable[[Axes, Study, BenchmarkTask], None], path: Path) -> None:
    columns = math.ceil(math.sqrt(len(study.tasks)))
    rows = math.ceil(len(study.tasks) / columns)
    # Room for the legend.
    figure = Figure((PANEL[0] * max(columns, 1.4), PANEL[1] * rows + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    handles = {}
    for panel, task in zip(axes, study.tasks, strict=False):
        draw(panel, study, task)
        panel.set_title(task.title, fontsize="medium")
        handles |= dict(zip(*reversed(panel.get_legend_handles_labels()), strict=True))
    for panel in axes[len(study.tasks) :]:
        panel.set_visible(False)
    if handles:
        figure.legend(handles.values(), handles, loc="outside upper center", ncols=len(handles), fontsize="small")
    # Without the version of matplotlib in it.
    figure.savefig(path, dpi=100, metadata={"Software": None})


def _color(study: Study, method: str) -> str:
    return f"C{study.methods.index(method)}"


def _metric(panel: Axes, study: Study, task: BenchmarkTask) -> None:
    for place, method in enumerate(study.methods):
        scores = list(study.scores(task, method).values())
        average = mean(scores)
        if average is None:
            continue
        color = _color(study, method)
        panel.errorbar(place, average.value, average.error or 0, fmt="o", capsize=4, color=color, label=method)
        panel.plot([place + 0.2] * len(scores), scores, ".", color=color, alpha=0.5)
    panel.set_xticks([])
    panel.set_xlim(-0.5, len(study.methods) - 0.5)
    panel.set_ylabel(f"{task.metric_title} × 100", fontsize="small")


def _losses(panel: Axes, study: Study, task: BenchmarkTask) -> None:
    for method in study.methods:
        for name, style, label in (("train_loss", "-", method), ("eval_loss", "--", None)):
            points = _by_epoch(study.finished(task, method), "epoch", name)
            if points:
                panel.plot(*zip(*points, strict=True), style, marker=".", color=_color(study, method), label=label)
    panel.set_xlabel("epoch", fontsize="small")
    panel.set_ylabel("loss", fontsize="small")


def _time(panel: Axes, study: Study, task: BenchmarkTask) -> None:
    for method in study.methods:
        points = _by_epoch(study.finished(task, method), "train_seconds", f"eval_{task.metric}")
        if points:
            seconds, scores = zip(*points, strict=True)
            scores = [100 * score for score in scores]
            panel.plot(seconds, scores, marker=".", color=_color(study, method), label=method)
    panel.set_xlabel("seconds in training", fontsize="small")
    panel.set_ylabel(f"{task.metric_title} × 100", fontsize="small")


def _sharpness(panel: Axes, study: Study, task: BenchmarkTask) -> None:
    for method in study.methods:
        scores, values = study.scores(task, method), study.values(task, method, sharpness)
        seeds = sorted(scores.keys() & values.keys())
        if seeds:
            points = [values[seed] for seed in seeds], [scores[seed] for seed in seeds]
            panel.plot(*points, "o", color=_color(study, method), alpha=0.7, label=method)
    panel.set_xlabel("sharpness", fontsize="small")
    panel.set_ylabel(f"{task.metric_title} × 100", fontsize="small")


def _by_epoch(records: list[Record], x: str, y: str) -> list[tuple[float, float]]:
    """Mean over runs of two numbers after each epoch, as far as all runs have them."""
    points = []
    for epochs in zip(*(record["train_info"]["epochs"] for record in records), strict=False):
        pairs = [(epoch.get(x), epoch.get(y)) for epoch in epochs]
        if all(None not in pair for pair in pairs):
            means: list[Mean] = [mean(values) for values in zip(*pairs, strict=True)]
            points.append((means[0].value, means[1].value))
    return points
