"""What is measured on images: top-1 and top-5 accuracy, and which classes are taken for which."""

import datasets
import evaluate
import numpy as np
from sklearn.metrics import accuracy_score, confusion_matrix
from transformers import EvalPrediction

from ..common.metrics import load_metric


class AccuracyMetric(evaluate.Metric):
    """
    The Hub's `accuracy` without the Hub.

    Example:

    ```python
    >>> AccuracyMetric().compute(predictions=[1, 1, 0, 1], references=[1, 0, 0, 1])
    {'accuracy': 0.75}
    ```
    """

    def _info(self):
        value = datasets.Value("int32")
        return evaluate.MetricInfo(
            description=self.__doc__,
            citation="https://scikit-learn.org",
            inputs_description="predictions and references: class indices",
            features=datasets.Features({"predictions": value, "references": value}),
            format="numpy",
        )

    def _compute(self, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        return {"accuracy": float(accuracy_score(references, predictions))}


class ImageMetrics:
    """
    `compute_metrics` of a Trainer: `accuracy` (top-1) and `top5_accuracy`.

    Args:
        num_classes (`int`): C. With C ≤ 5, every image is right by top-5.

    Attributes:
        confusion (`np.ndarray` of shape `(C, C)`, or `None`): counts of the last evaluation, true class by row and
            predicted class by column.
    """

    TOP = 5

    def __init__(self, num_classes: int):
        self.num_classes = num_classes
        self.confusion: np.ndarray | None = None
        self._accuracy = load_metric("accuracy", fallback=AccuracyMetric)

    def __call__(self, prediction: EvalPrediction) -> dict[str, float]:
        # Some models return hidden states after the logits.
        logits = prediction.predictions[0] if isinstance(prediction.predictions, tuple) else prediction.predictions
        labels = prediction.label_ids
        guesses = logits.argmax(axis=-1)
        self.confusion = confusion_matrix(labels, guesses, labels=range(self.num_classes))
        top = np.argsort(-logits, axis=-1, kind="stable")[:, : self.TOP]
        result = self._accuracy.compute(predictions=guesses, references=labels)
        return result | {"top5_accuracy": float((top == labels[:, None]).any(axis=-1).mean())}
