"""How far a classifier's confidence is from how often it is right."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import softmax


if TYPE_CHECKING:
    # Slow to import, and a report does without.
    from transformers import EvalPrediction


BINS = 15


def expected_calibration_error(logits: np.ndarray, labels: np.ndarray, bins: int = BINS) -> float:
    """
    Expected calibration error (Guo et al. 2017, eq. 3): the mean over examples of the gap between confidence and
    accuracy in the example's bin of confidence. `bins` are of equal width, each with its upper end.

    Args:
        logits (`np.ndarray` of shape `(n, C)`): Scores before the softmax.
        labels (`np.ndarray` of shape `(n,)`): Class indices.

    Returns:
        `float`: from 0 to 1; not a number where a logit is none.
    """
    probabilities = softmax(logits.astype(np.float64), axis=-1)
    confidence = probabilities.max(axis=-1)
    if not np.isfinite(confidence).all():
        return float("nan")
    gap = (probabilities.argmax(axis=-1) == labels) - confidence
    bin_of = np.ceil(confidence * bins).astype(int)
    return float(np.abs(np.bincount(bin_of, weights=gap)).sum() / len(labels))


def with_calibration(compute_metrics: Callable[[EvalPrediction], dict]) -> Callable[[EvalPrediction], dict]:
    """`compute_metrics` with the calibration error as `ece` beside it, where classes are predicted."""

    def compute(prediction: EvalPrediction) -> dict[str, float]:
        logits, labels = prediction.predictions, prediction.label_ids
        # Some models return hidden states after the logits.
        logits = logits[0] if isinstance(logits, tuple) else logits
        metrics = compute_metrics(prediction)
        is_class = np.issubdtype(labels.dtype, np.integer)
        return metrics | ({"ece": expected_calibration_error(logits, labels)} if is_class else {})

    return compute
