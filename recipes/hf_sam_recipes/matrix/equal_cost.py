"""Each method against the stock run that costs as much as it does, and what that shows."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from .benchmark import BenchmarkTask
from .study import Study, Value, cost
from .summary import Difference, average_over, mean, mean_difference
from .tables import MISSING, difference_cell, grid


GRADIENTS, SECONDS = cost("gradient_computations"), cost("train_seconds")
# Costs that are no further apart than by this factor count as equal.
NEAR = 1.25


@dataclass(frozen=True)
class Comparison:
    """
    Args:
        reference (`str`): The stock method that a method is compared with.
        ratio (`float`): Cost of the method over that of the reference, means over their seeds.
        by_seed (`dict[int, float]`): Score in per cent minus that of the reference.
    """

    reference: str
    ratio: float
    by_seed: dict[int, float]


def compare(study: Study, task: BenchmarkTask, method: str, reference: str, value: Value) -> Comparison | None:
    """`None` where a cost is missing."""
    own, theirs = (mean(list(study.values(task, name, value).values())) for name in (method, reference))
    if not own or not theirs:
        return None
    scores, others = study.scores(task, method), study.scores(task, reference)
    by_seed = {seed: scores[seed] - others[seed] for seed in scores.keys() & others.keys()}
    return Comparison(reference, own.value / theirs.value, by_seed)


def at_equal_cost(study: Study, task: BenchmarkTask, method: str, value: Value) -> Comparison | None:
    """A method against the stock one whose cost is nearest; `None` if it is further away than `NEAR`."""
    found = [compare(study, task, method, reference, value) for reference in study.stock_methods]
    distances = [(abs(math.log(comparison.ratio)), place) for place, comparison in enumerate(found) if comparison]
    distance, place = min(distances, default=(math.inf, 0))
    return found[place] if distance <= math.log(NEAR) else None


def average(comparisons: Sequence[Comparison | None]) -> Difference | None:
    """Over tasks; `None` where one of them has no comparison."""
    return None if None in comparisons else mean_difference(average_over([found.by_seed for found in comparisons]))


def equal_cost_table(study: Study, value: Value) -> str:
    """Task × method that perturbs: the difference, to which stock method, the ratio of the costs; empty if to none."""
    found = {(m, task): at_equal_cost(study, task, m, value) for m in study.perturbing for task in study.tasks}

    def cell(method: str, task: BenchmarkTask | None) -> str:
        if task is None:
            return difference_cell(average([found[method, task] for task in study.tasks]), len(study.seeds))
        comparison = found[method, task]
        if comparison is None:
            return MISSING
        difference = difference_cell(mean_difference(comparison.by_seed), len(study.seeds))
        return f"{difference} to {comparison.reference} ({comparison.ratio:.2f}×)"

    columns = {method: partial(cell, method) for method in study.perturbing}
    return grid(study, columns, average=True) if any(found.values()) else ""


def finding(study: Study) -> str:
    """What was found: the methods that perturb at equal gradients, or else against the baseline for as many epochs."""
    parts: dict[str, list[str]] = {}
    for method in study.perturbing:
        found = [at_equal_cost(study, task, method, GRADIENTS) for task in study.tasks]
        against = "at equal gradients, against " + " or ".join(dict.fromkeys(f"`{c.reference}`" for c in found if c))
        if None in found:
            found = [compare(study, task, method, study.baseline, GRADIENTS) for task in study.tasks]
            against = f"for as many epochs, against `{study.baseline}`"
        of_all = average(found)
        if of_all is None:
            continue
        differences = [mean_difference(comparison.by_seed) for comparison in found]
        better, worse = (
            sum(sign * (d.low or 0) > 0 and sign * (d.high or 0) > 0 for d in differences if d) for sign in (1, -1)
        )
        parts.setdefault(against, []).append(
            f"`{method}` {difference_cell(of_all, len(study.seeds))} (by task: {better} better, {worse} worse, "
            f"{len(found) - better - worse} undecided)"
        )
    return "; ".join(f"{against}: {', '.join(shown)}" for against, shown in parts.items()) or "nothing to compare yet"
