"""Pictures of a run, as PNG files: which classes are taken for which, and how the losses went."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from sklearn.metrics import ConfusionMatrixDisplay


# Legend -> key in the Trainer's log. Without a perturbation only some of them are there.
CURVES = {
    "training": "loss",
    "training, perturbed": "sam/perturbed_loss",
    "evaluation": "eval_loss",
}
MOST_CLASSES_WITH_NAMES = 20


def plot_confusion(confusion: np.ndarray, labels: Sequence[str], path: Path) -> None:
    """
    Args:
        confusion (`np.ndarray` of shape `(C, C)`): Counts, true class by row and predicted class by column.
        labels (`Sequence[str]`): The C names. Left out, as the counts in the cells, where there are more than 20.
        path (`Path`): The PNG file to write.
    """
    readable = len(labels) <= MOST_CLASSES_WITH_NAMES
    figure = Figure(figsize=(8, 7), layout="constrained")
    axes = figure.add_subplot()
    display = ConfusionMatrixDisplay(confusion, display_labels=labels if readable else None)
    display.plot(include_values=readable, xticks_rotation="vertical", cmap="Blues", ax=axes, values_format="d")
    if not readable:
        ticks = range(0, len(labels), 10)
        axes.set(xticks=ticks, yticks=ticks, xticklabels=ticks, yticklabels=ticks)
    figure.savefig(path)


def plot_losses(log_history: Sequence[dict[str, Any]], path: Path) -> None:
    """
    Args:
        log_history (`Sequence[dict]`): `trainer.state.log_history`.
        path (`Path`): The PNG file to write.
    """
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for name, key in CURVES.items():
        points = [(entry["epoch"], entry[key]) for entry in log_history if key in entry and "epoch" in entry]
        if points:
            # A single evaluation would be an invisible line.
            axes.plot(*zip(*points, strict=True), label=name, marker="o" if len(points) < 30 else None, markersize=3)
    axes.set(xlabel="epoch", ylabel="loss")
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend()
    figure.savefig(path)
