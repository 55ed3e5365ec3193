"""The choice of rho."""

import argparse
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .benchmark import BenchmarkTask
from .records import FINISHED


RHO_GRID = (0.01, 0.02, 0.05, 0.1, 0.2)


@dataclass(frozen=True)
class RhoChoice:
    """
    Args:
        rho (`float`): The chosen radius.
        metric (`str`): What it was chosen by.
        tried (`tuple[tuple[float, float, float], ...]`): Radius, metric and loss on the held-out examples.
    """

    rho: float
    metric: str
    tried: tuple[tuple[float, float, float], ...]


def choose_rho(task: BenchmarkTask, records: Sequence[dict[str, Any]]) -> RhoChoice:
    """
    The radius with the best metric on the held-out examples; among equals the lowest loss, then the smallest radius.

    Raises:
        `ValueError`: one of the runs has failed.
    """
    failed = [f"{record['rho']:g}" for record in records if record["status"] != FINISHED]
    if failed:
        raise ValueError(f"{task.name}: the runs with rho {', '.join(failed)} failed: repeat with --retry_failed.")
    tried = []
    for record in sorted(records, key=lambda record: record["rho"]):
        metrics = record["train_info"]["metrics"]
        tried.append((record["rho"], metrics[task.metric], metrics["loss"]))
    # A run that diverged has no numbers, and loses.
    finite = [entry for entry in tried if None not in entry]
    if not finite:
        raise ValueError(f"{task.name}: no rho gave a finite loss; lower the learning rate.")
    best = min(finite, key=lambda entry: (-entry[1], entry[2], entry[0]))
    return RhoChoice(rho=best[0], metric=task.metric, tried=tuple(tried))


def read_choice(path: Path) -> dict[str, Any]:
    """
    What `write_rho` has written: the `model`, and `rho` by task.

    Raises:
        `ValueError`: it is another file.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a YAML file: {error}") from error
    if not isinstance(content, dict) or "model" not in content or not isinstance(content.get("rho"), dict):
        raise ValueError(f"{path}: no choice of rho, which has a model and a rho per task; give another --rho_file.")
    return content


def require_no_other_choice(path: Path, tasks: Sequence[str]) -> None:
    """
    Raises:
        `ValueError`: the file has the choice for a task that is not among these, and would lose it.
    """
    if path.is_file():
        lost = sorted(set(read_choice(path)["rho"]) - set(tasks))
        if lost:
            raise ValueError(
                f"{path} has a rho for {', '.join(lost)} too, which would be lost: add them to --tasks (runs that are "
                "there are not repeated), or give another --rho_file."
            )


def write_rho(
    path: Path, settings: dict[str, Any], choices: dict[str, RhoChoice], options: argparse.Namespace
) -> None:
    """Write the choice as YAML that `read_rho` reads, with all that was tried, and the settings, in comments."""
    model = settings["model"]
    shown = {"epochs": settings["epochs"] or "the recipes' own", **settings["options"]}
    lines = [
        f"# Radius of the perturbation for {model}, for every method that perturbs, per task. Chosen with",
        f"# {options.method}, seed {options.seed}, on {options.holdout:g} of the training sample, left out of it.",
        *textwrap.wrap(
            f"# With {', '.join(f'{name} {value}' for name, value in shown.items() if name != 'holdout')}.",
            width=119,
            subsequent_indent="# ",
        ),
        "# Written by select_rho.py, read by run.py --rho_file.",
        f"model: {model}",
        "rho:",
    ]
    for task, choice in choices.items():
        lines.append(f"  # {choice.metric} (loss) on the held-out examples:")
        lines += [
            f"  #   {rho:g}: {_shown(metric)} ({_shown(loss)}){'  <- chosen' if rho == choice.rho else ''}"
            for rho, metric, loss in choice.tried
        ]
        lines.append(f"  {task}: {choice.rho:g}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _shown(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4f}"
