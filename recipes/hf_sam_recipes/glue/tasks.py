"""The nine tasks of GLUE (https://arxiv.org/abs/1804.07461): columns, classes, splits, submission files."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from transformers import PretrainedConfig
from transformers.utils import logging

from ..common.models import name_classes
from ..common.names import did_you_mean


logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class GlueTask:
    """
    One task.

    Args:
        name (`str`): Name on the Hub, the configuration of `nyu-mll/glue`.
        folder (`str`): Name in the official archives and of the submission file.
        sentences (`tuple[str, ...]`): The Hub's columns that hold the one or two sentences.
        labels (`tuple[str, ...]`): Class names in the order of the Hub's class indices; empty for regression.
        test_sizes (`tuple[int, ...]`): Examples of the official test splits, in the order of `test_splits`.
        named_predictions (`bool`): Whether the submission file has class names instead of class indices.
    """

    name: str
    folder: str
    sentences: tuple[str, ...]
    labels: tuple[str, ...]
    test_sizes: tuple[int, ...]
    named_predictions: bool = False

    @property
    def is_regression(self) -> bool:
        return not self.labels

    @property
    def num_labels(self) -> int:
        return max(1, len(self.labels))

    @property
    def validation_splits(self) -> dict[str, str]:
        """Split -> suffix of its metrics. The first one is always there and is evaluated during training."""
        if self.name == "mnli":
            return {"validation_matched": "", "validation_mismatched": "_mm"}
        return {"validation": ""}

    @property
    def test_splits(self) -> dict[str, str]:
        """Split -> name of the submission file."""
        if self.name == "mnli":
            return {"test_matched": "MNLI-m.tsv", "test_mismatched": "MNLI-mm.tsv"}
        return {"test": f"{self.folder}.tsv"}

    def configure_head(self, config: PretrainedConfig, for_training: bool) -> None:
        """
        Write the task's classes into a model's configuration.

        Raises:
            `ValueError`: a model that is only to be evaluated has the task's classes in another order.
        """
        if self.is_regression:
            config.num_labels, config.problem_type = 1, "regression"
            return
        name_classes(config, self.labels, self.name, for_training)

    def predict(self, logits: np.ndarray | tuple[np.ndarray, ...]) -> np.ndarray:
        """
        Class indices, or scores clipped to the annotators' scale from 0 to 5, of shape `(n,)`.

        Args:
            logits (`np.ndarray` of shape `(n, num_labels)`, or a tuple that starts with it):
                What the model returns; some models return hidden states after the logits.
        """
        logits = logits[0] if isinstance(logits, tuple) else logits
        return np.clip(logits.reshape(-1), 0.0, 5.0) if self.is_regression else logits.argmax(axis=-1)

    def write_submission(self, path: Path, predictions: np.ndarray) -> None:
        """
        Write predictions of shape `(n,)`, in the order of the test split, as gluebenchmark.com wants them. Warns where
        they are not as many as the official test split has examples.
        """
        official = dict(zip(self.test_splits.values(), self.test_sizes, strict=True))[path.name]
        if len(predictions) != official:
            logger.warning(f"{path}: {len(predictions)} predictions, but a submission needs {official}.")
        with open(path, "w", encoding="utf-8") as file:
            file.write("index\tprediction\n")
            for index, prediction in enumerate(predictions):
                file.write(f"{index}\t{self._as_submitted(prediction)}\n")

    def _as_submitted(self, prediction: float) -> str:
        if self.is_regression:
            return f"{prediction:.3f}"
        return self.labels[prediction] if self.named_predictions else str(prediction)


PAIR = ("sentence1", "sentence2")
NLI_LABELS, ENTAILMENT = ("entailment", "neutral", "contradiction"), ("entailment", "not_entailment")

TASKS = {
    task.name: task
    for task in (
        GlueTask("cola", "CoLA", ("sentence",), ("unacceptable", "acceptable"), (1063,)),
        GlueTask("sst2", "SST-2", ("sentence",), ("negative", "positive"), (1821,)),
        GlueTask("mrpc", "MRPC", PAIR, ("not_equivalent", "equivalent"), (1725,)),
        GlueTask("stsb", "STS-B", PAIR, (), (1379,)),
        GlueTask("qqp", "QQP", ("question1", "question2"), ("not_duplicate", "duplicate"), (390965,)),
        GlueTask("mnli", "MNLI", ("premise", "hypothesis"), NLI_LABELS, (9796, 9847), named_predictions=True),
        GlueTask("qnli", "QNLI", ("question", "sentence"), ENTAILMENT, (5463,), named_predictions=True),
        GlueTask("rte", "RTE", PAIR, ENTAILMENT, (3000,), named_predictions=True),
        GlueTask("wnli", "WNLI", PAIR, ("not_entailment", "entailment"), (146,)),
    )
}


def find_task(name: str) -> GlueTask:
    """
    The task with this name, in the Hub's spelling (`sst2`) or the official one (`SST-2`).

    Raises:
        `ValueError`: there is no such task; the message has the nearest name and all names.
    """
    key = name.lower().replace("-", "")
    if key not in TASKS:
        raise ValueError(f"task_name={name!r}: {did_you_mean(key, TASKS)}GLUE's tasks are {', '.join(TASKS)}.")
    return TASKS[key]
