"""The statistics of a table: means, standard errors, paired differences."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy.stats import t


CONFIDENCE = 0.95


@dataclass(frozen=True)
class Mean:
    """
    Args:
        value (`float`): Mean.
        error (`float` or `None`): Standard error of the mean, `s / √n` with `n - 1` degrees of freedom; `None` for a
            single value.
        count (`int`): Number of values.
    """

    value: float
    error: float | None
    count: int


@dataclass(frozen=True)
class Difference:
    """
    Args:
        value (`float`): Mean of the paired differences.
        low, high (`float` or `None`): Ends of the 95% interval of Student's t; `None` for a single pair.
        count (`int`): Number of pairs.
    """

    value: float
    low: float | None
    high: float | None
    count: int


def mean(values: Sequence[float]) -> Mean | None:
    """Mean and standard error, `None` without values."""
    if not values:
        return None
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
    return Mean(statistics.fmean(values), error, len(values))


def paired_difference(values: Mapping[int, float], baseline: Mapping[int, float]) -> Difference | None:
    """
    Mean difference to the baseline over the seeds that both have, `None` without such a seed.

    Args:
        values, baseline (`Mapping[int, float]`): Results by seed.
    """
    return mean_difference({seed: values[seed] - baseline[seed] for seed in values.keys() & baseline.keys()})


def mean_difference(differences: Mapping[int, float]) -> Difference | None:
    """The same of the differences themselves, by seed."""
    average = mean([differences[seed] for seed in sorted(differences)])
    if average is None:
        return None
    if average.error is None:
        return Difference(average.value, None, None, 1)
    half = float(t.ppf((1 + CONFIDENCE) / 2, average.count - 1)) * average.error
    return Difference(average.value, average.value - half, average.value + half, average.count)


def average_over(values: Sequence[Mapping[int, float]]) -> dict[int, float]:
    """Mean over tasks, by seed, for the seeds that every task has."""
    seeds = set.intersection(*(set(of_task) for of_task in values)) if values else set()
    return {seed: statistics.fmean(of_task[seed] for of_task in values) for seed in sorted(seeds)}
