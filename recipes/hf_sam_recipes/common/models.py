"""Reading models: mistakes that name the option, and what a model calls its outputs."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from transformers import PretrainedConfig


# What can be the name of a model on the Hub; all else is the path of a folder.
HUB_NAME = re.compile(r"\w[\w.-]*(/[\w.-]+)?")


@contextmanager
def reading_model(name: str) -> Iterator[None]:
    """
    Around every `from_pretrained(name)`.

    Raises:
        `ValueError`: there is no such model, or a file of it is missing or broken, or its head does not fit the task.
    """
    try:
        yield
    except Exception as error:  # of a broken file, the readers of tokenizers and of weights raise what they like
        if isinstance(error, RuntimeError) and "ignore_mismatched_sizes" in str(error):
            # The host has logged which weights they are.
            raise ValueError(
                f"model_name_or_path={name!r}: weights of another size, those of a head for another task or data set; "
                "--ignore_mismatched_sizes true draws them anew."
            ) from error
        if isinstance(error, ModelMistakeError):
            raise
        raise ValueError(
            f"model_name_or_path={name!r}: {_reason(name, error)}; give a folder with a model, or the name of one on "
            "the Hub."
        ) from error


class ModelMistakeError(ValueError):
    """Already says what is wrong with which model."""


def _reason(name: str, error: Exception) -> str:
    if not Path(name).exists() and not HUB_NAME.fullmatch(name):
        return f"no such folder (looked for {Path(name).absolute()})"
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(".") if isinstance(error, OSError | ValueError) else f"broken files ({lines[0]})"


def name_classes(config: PretrainedConfig, labels: Sequence[str], task: str, for_training: bool) -> None:
    """
    Write the classes of a task into a model's configuration.

    Raises:
        `ValueError`: a model that is only to be evaluated has the same classes in another order.
    """
    present = [str(label).lower() for label in config.id2label.values()]
    if not for_training and present != list(labels) and sorted(present) == sorted(labels):
        raise ModelMistakeError(
            f"{config.name_or_path}: its classes are {present}, those of {task} are {list(labels)}. Evaluated like "
            "this, its right answers would count as wrong ones: fine-tune it first (--do_train)."
        )
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: index for index, label in enumerate(labels)}
