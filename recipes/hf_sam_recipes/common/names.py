"""Names of options, tasks and classes: what was meant by a wrong one, and what a model calls its outputs."""

import difflib
from collections.abc import Iterable, Sequence

from transformers import PretrainedConfig


def did_you_mean(name: str, known: Iterable[str], cutoff: float = 0.3) -> str:
    """`"did you mean 'sam'? "`, ready for another sentence, or nothing where no known name is near."""
    nearest = difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return f"did you mean {nearest[0]!r}? " if nearest else ""


def require_known(what: str, name: str, known: Iterable[str]) -> None:
    """
    Raises:
        `ValueError`: the name is not known; the message has the nearest name and all names.
    """
    known = list(known)
    if name not in known:
        raise ValueError(f"{what} {name!r}: {did_you_mean(name, known)}There are {', '.join(known) or 'none'}.")


def name_classes(config: PretrainedConfig, labels: Sequence[str], task: str, for_training: bool) -> None:
    """
    Write the classes of a task into a model's configuration.

    Raises:
        `ValueError`: a model that is only to be evaluated has the same classes in another order.
    """
    present = [str(label).lower() for label in config.id2label.values()]
    if not for_training and present != list(labels) and sorted(present) == sorted(labels):
        raise ValueError(
            f"{config.name_or_path}: its classes are {present}, those of {task} are {list(labels)}. Evaluated like "
            "this, its right answers would count as wrong ones: fine-tune it first (--do_train)."
        )
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: index for index, label in enumerate(labels)}
