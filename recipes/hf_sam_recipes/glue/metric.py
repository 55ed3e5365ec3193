"""The GLUE metrics without the Hub."""

import datasets
import evaluate
import numpy as np
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef


class GlueMetric(evaluate.Metric):
    """
    The metrics that GLUE reports for a task, given as `config_name`, with the keys of the Hub's `glue` metric: CoLA
    `matthews_correlation`; STS-B `pearson` and `spearmanr`; MRPC and QQP `accuracy` and `f1` (of class 1); else
    `accuracy`.

    Example:

    ```python
    >>> GlueMetric(config_name="mrpc").compute(predictions=[1, 1, 0, 1], references=[1, 0, 0, 1])
    {'accuracy': 0.75, 'f1': 0.8}
    ```
    """

    def _info(self):
        # float32 as in the Hub's metric, or the numbers would differ in the last places.
        value = datasets.Value("float32" if self.config_name == "stsb" else "int64")
        return evaluate.MetricInfo(
            description=self.__doc__,
            citation="https://arxiv.org/abs/1804.07461",
            inputs_description="predictions and references: class indices, or scores for STS-B",
            features=datasets.Features({"predictions": value, "references": value}),
            format="numpy",
        )

    def _compute(self, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        if self.config_name == "cola":
            return {"matthews_correlation": float(matthews_corrcoef(references, predictions))}
        if self.config_name == "stsb":
            return {
                "pearson": float(pearsonr(predictions, references)[0]),
                "spearmanr": float(spearmanr(predictions, references)[0]),
            }
        result = {"accuracy": float(accuracy_score(references, predictions))}
        if self.config_name in ("mrpc", "qqp"):
            result["f1"] = float(f1_score(references, predictions))
        return result
