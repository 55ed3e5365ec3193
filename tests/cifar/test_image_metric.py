"""Top-1 and top-5 accuracy against scikit-learn, and the confusion matrix that is remembered and drawn."""

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import top_k_accuracy_score
from transformers import EvalPrediction

from hf_sam_recipes.images.metric import AccuracyMetric, ImageMetrics
from hf_sam_recipes.images.plots import plot_confusion, plot_losses


@pytest.fixture
def prediction():
    rng = np.random.default_rng(0)
    return EvalPrediction(rng.normal(size=(200, 10)).astype(np.float32), rng.integers(10, size=200))


@pytest.mark.parametrize("with_hidden_states", [False, True])
def test_accuracies_are_those_of_scikit_learn(prediction, with_hidden_states):
    logits, labels = prediction.predictions, prediction.label_ids
    if with_hidden_states:
        prediction = EvalPrediction((logits, np.zeros((200, 3))), labels)
    result = ImageMetrics(10)(prediction)
    assert result.keys() == {"accuracy", "top5_accuracy"}
    assert result["accuracy"] == pytest.approx(top_k_accuracy_score(labels, logits, k=1))
    assert result["top5_accuracy"] == pytest.approx(top_k_accuracy_score(labels, logits, k=5))
    assert 0 < result["accuracy"] < 0.3 < result["top5_accuracy"] < 0.7


def test_with_few_classes_every_image_is_right_by_top_5():
    logits = np.array([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0]])
    assert ImageMetrics(3)(EvalPrediction(logits, np.array([0, 0]))) == {"accuracy": 0.5, "top5_accuracy": 1.0}


def test_the_confusion_has_the_true_class_by_row():
    metrics = ImageMetrics(4)
    guesses, labels = np.array([1, 1, 0, 2]), np.array([0, 0, 0, 2])
    metrics(EvalPrediction(np.eye(4)[guesses], labels))
    expected = np.zeros((4, 4), int)
    expected[0, 1], expected[0, 0], expected[2, 2] = 2, 1, 1
    assert np.array_equal(metrics.confusion, expected)


def test_the_fallback_is_the_share_of_right_guesses():
    """evaluate-metric/accuracy is scikit-learn's accuracy_score as `accuracy`."""
    assert AccuracyMetric().compute(predictions=[1, 1, 0, 1], references=[1, 0, 0, 1]) == {"accuracy": 0.75}


@pytest.mark.parametrize("num_classes", [10, 100])
def test_the_picture_of_a_confusion_is_dark_where_the_counts_are(num_classes, tmp_path):
    def darkness(confusion):
        plot_confusion(confusion, [f"class {i}" for i in range(num_classes)], tmp_path / "confusion.png")
        return 255 - np.asarray(Image.open(tmp_path / "confusion.png").convert("L")).astype(float)

    everything = np.full((num_classes, num_classes), 5)
    above, below = np.triu(everything), np.tril(everything)
    # Only inside of the axes do the two differ, and there the one is dark above and the other below the diagonal.
    difference = darkness(above) - darkness(below)
    rows, columns = np.nonzero(np.abs(difference) > 100)
    signs = difference[rows, columns]
    height, width = difference.shape
    is_above = (columns - columns.min()) / np.ptp(columns) > (rows - rows.min()) / np.ptp(rows)
    assert len(rows) > 0.3 * height * width
    assert np.mean((signs > 0) == is_above) > 0.95


def test_the_curves_are_the_log(tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(
        "matplotlib.figure.Figure.savefig", lambda figure, path: drawn.update(figure=figure, path=path)
    )
    log = [
        {"loss": 2.0, "sam/perturbed_loss": 2.5, "epoch": 0.5, "step": 1},
        {"eval_loss": 1.8, "eval_accuracy": 0.3, "epoch": 1.0, "step": 2},
        {"loss": 1.5, "sam/perturbed_loss": 1.9, "epoch": 1.0, "step": 2},
        {"train_loss": 1.7, "train_runtime": 3.0, "epoch": 1.0, "step": 2},
    ]
    plot_losses(log, tmp_path / "losses.png")
    lines = {line.get_label(): line.get_xydata().tolist() for line in drawn["figure"].axes[0].lines}
    assert lines == {
        "training": [[0.5, 2.0], [1.0, 1.5]],
        "training, perturbed": [[0.5, 2.5], [1.0, 1.9]],
        "evaluation": [[1.0, 1.8]],
    }
    plot_losses([entry for entry in log if "loss" not in entry], tmp_path / "losses.png")
    assert [line.get_label() for line in drawn["figure"].axes[0].lines] == ["evaluation"]
