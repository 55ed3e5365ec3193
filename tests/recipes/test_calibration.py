"""The calibration error is the one of the paper: bins of confidence, each with its upper end."""

import numpy as np
import pytest
from scipy.special import softmax
from transformers import EvalPrediction

from hf_sam_recipes.common.calibration import BINS, expected_calibration_error, with_calibration


def by_definition(logits: np.ndarray, labels: np.ndarray) -> float:
    """Guo et al. 2017, equations 1 to 3, bin by bin."""
    confidence, guess = softmax(logits, axis=1).max(axis=1), logits.argmax(axis=1)
    error = 0.0
    for m in range(1, BINS + 1):
        inside = ((m - 1) / BINS < confidence) & (confidence <= m / BINS)
        if inside.any():
            accuracy = (guess == labels)[inside].mean()
            error += inside.mean() * abs(accuracy - confidence[inside].mean())
    return error


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_as_by_definition(classes):
    rng = np.random.default_rng(classes)
    logits, labels = 3 * rng.standard_normal((500, classes)), rng.integers(classes, size=500)
    assert expected_calibration_error(logits, labels) == pytest.approx(by_definition(logits, labels), abs=1e-12)


def test_sure_and_right_is_calibrated_and_sure_and_wrong_is_not():
    logits = np.array([[100.0, -100.0], [-100.0, 100.0]])
    assert expected_calibration_error(logits, np.array([0, 1])) == pytest.approx(0.0)
    assert expected_calibration_error(logits, np.array([1, 0])) == pytest.approx(1.0)
    # Undecided, and right half of the time.
    assert expected_calibration_error(np.zeros((4, 2)), np.array([0, 1, 0, 1])) == pytest.approx(0.0)
    assert np.isnan(expected_calibration_error(np.array([[np.nan, 0.0]]), np.array([0])))


def test_it_stands_beside_the_metrics_of_a_classifier_only():
    compute = with_calibration(lambda prediction: {"accuracy": 0.5})
    logits = np.zeros((4, 2), dtype=np.float32)
    hidden = (logits, np.ones((4, 3)))
    assert compute(EvalPrediction(hidden, np.array([0, 1, 0, 1]))) == {"accuracy": 0.5, "ece": pytest.approx(0.0)}
    assert compute(EvalPrediction(logits[:, :1], np.zeros(4, dtype=np.float32))) == {"accuracy": 0.5}
