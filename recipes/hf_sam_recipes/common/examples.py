"""Which training examples a run sees: a seeded sample, a held-out part, wrong labels."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
from datasets import Dataset, NamedSplit, concatenate_datasets
from transformers import Trainer

from .evaluations import EvaluationBeside, SparseEvaluation


# Suffix of the metrics on held-out examples beside those on the evaluation split.
HELD_OUT = "_holdout"

# What the model card says about an option whose value is not the default.
CARD_LINES = {
    "max_train_samples": "`max_train_samples`: {}. The training sample: at most so many examples of the training "
    "split, drawn at random.",
    "holdout": "`holdout`: {}. This part of the training sample was not trained on. The results are those on it, not "
    "on a validation or test split.",
    "holdout_beside": "`holdout_beside`: {}. Only those named `holdout` are; the others are on the evaluation split.",
    "label_noise": "`label_noise`: {}. This part of the training labels was replaced by wrong ones.",
    "max_eval_samples": "`max_eval_samples`: {}. The results are those on at most so many examples, drawn at random.",
}


@dataclass
class ExampleArguments:
    """Which examples of the data a run trains on and is measured with, and how often."""

    max_train_samples: int | None = field(
        default=None, metadata={"help": "Train on a random sample of this size, drawn with data_seed or seed."}
    )
    max_eval_samples: int | None = field(
        default=None, metadata={"help": "Evaluate on a random sample of this size, drawn with data_seed or seed."}
    )
    holdout: float = field(
        default=0.0,
        metadata={
            "help": "Evaluate on this part of the training sample, taken out of training, instead. Above 1: so many."
        },
    )
    holdout_beside: bool = field(
        default=False, metadata={"help": "Evaluate on the held-out part beside the evaluation split, not instead."}
    )
    eval_epochs: int = field(
        default=1, metadata={"help": "With eval_strategy epoch, evaluate after every so many epochs and the last one."}
    )
    label_noise: float = field(
        default=0.0, metadata={"help": "Part of the training labels to replace by wrong ones, from 0 to 1."}
    )

    @property
    def evaluates_on_split(self) -> bool:
        """Whether the data's own evaluation split is needed."""
        return not self.holdout or self.holdout_beside

    def choose(
        self, train: Dataset | None, evaluation: dict[str, Dataset], seed: int, num_classes: int | None
    ) -> tuple[Dataset | None, dict[str, Dataset]]:
        """
        Args:
            train (`Dataset`, *optional*): All there is to train on. Needed with `holdout`.
            evaluation (`dict[str, Dataset]`): All there is to evaluate on. With `holdout`, the held-out part replaces
                the one named `""`, or stands before it as `"_holdout"`. Its labels are never wrong.
            seed (`int`): Of every draw.
            num_classes (`int`, *optional*): `None` for regression.

        Raises:
            `ValueError`: an option has a value that the data does not allow.
        """
        if self.holdout_beside and not self.holdout:
            raise ValueError("holdout_beside=True needs a holdout: give it, or leave holdout_beside out.")
        if train is not None:
            train = take_sample(train, self.max_train_samples, seed, "max_train_samples")
        if self.holdout:
            train, held_out = hold_out(train, self.holdout, seed)
            evaluation = {HELD_OUT: held_out, **evaluation} if self.holdout_beside else evaluation | {"": held_out}
        evaluation = {
            name: take_sample(split, self.max_eval_samples, seed, "max_eval_samples")
            for name, split in evaluation.items()
        }
        if self.label_noise and train is not None:
            labels = corrupt_labels(train["label"], self.label_noise, seed, num_classes)
            feature = train.features["label"]
            train = train.remove_columns("label").add_column("label", labels, feature=feature)
        return train, evaluation

    def evaluate_in_training(self, trainer: Trainer, evaluation: dict[str, Dataset]) -> None:
        """
        Have the Trainer evaluate on the held-out part too, and not after every epoch.

        Raises:
            `ValueError`: `eval_epochs` is below 1.
        """
        if self.eval_epochs < 1:
            raise ValueError(f"eval_epochs={self.eval_epochs}: must be at least 1.")
        if self.eval_epochs > 1:
            trainer.add_callback(SparseEvaluation(self.eval_epochs))
        if HELD_OUT in evaluation:
            trainer.add_callback(EvaluationBeside(trainer, {HELD_OUT: evaluation[HELD_OUT]}))

    def describe(self, seed: int) -> str:
        """
        What the model card should say about the examples: a Markdown list of the options that are not the default,
        and the `seed` that `choose` had. Empty if all are.
        """
        default, values = asdict(ExampleArguments()), asdict(self)
        lines = [
            f"- {line.format(values[name])}" for name, line in CARD_LINES.items() if values[name] != default[name]
        ]
        return "\n".join([*lines, f"- All of this was drawn with seed {seed}."]) if lines else ""


def take_sample(dataset: Dataset, size: int | None, seed: int, option: str = "size") -> Dataset:
    """
    A seeded random sample of `size` examples without replacement, in the order of the dataset. The dataset itself
    where `size` is `None` or not smaller than the dataset. `option` is what an error calls the size.

    Raises:
        `ValueError`: `size` is not positive.
    """
    if size is None or size >= len(dataset):
        return dataset
    if size < 1:
        raise ValueError(f"{option}={size}: must be at least 1; leave it out for all examples.")
    chosen = np.random.default_rng(seed).choice(len(dataset), size=size, replace=False)
    return dataset.select(np.sort(chosen))


def hold_out(dataset: Dataset, fraction: float, seed: int) -> tuple[Dataset, Dataset]:
    """
    Split a dataset into the examples to train on and a seeded random `fraction` of them, at least one (above 1: so
    many), to choose hyperparameters with, so that the validation split stays unseen until the end.

    Returns:
        `tuple[Dataset, Dataset]`: both parts, in the order of the dataset. The `split` of the second is
        `train_held_out`: results on it are neither those of the validation split nor those on what was trained on.

    Raises:
        `ValueError`: `fraction` is not positive, or leaves nothing to train on.
    """
    if not 0 < fraction < float("inf"):
        raise ValueError(f"holdout={fraction}: must be above 0, and finite; above 1 it is a number of examples.")
    held_out = round(fraction) if fraction > 1 else max(1, round(fraction * len(dataset)))
    if held_out >= len(dataset):
        raise ValueError(f"holdout={fraction} of {len(dataset)} training examples: must leave both parts non-empty.")
    order = np.random.default_rng(seed).permutation(len(dataset))
    rest, part = dataset.select(np.sort(order[held_out:])), dataset.select(np.sort(order[:held_out]))
    # Datasets have no other public way to name a split.
    return rest, concatenate_datasets([part], split=NamedSplit("train_held_out"))


def corrupt_labels(labels: Sequence[float], fraction: float, seed: int, num_classes: int | None = None) -> np.ndarray:
    """
    Training labels of which `round(fraction * n)` are wrong.

    The examples are drawn without replacement. Each of them gets one of the other classes with equal probability
    (symmetric label noise, as in section 3.3 of the SAM paper, but never the true class by accident). A regression
    target is replaced by the target of a random training example that has another value, which leaves the marginal
    distribution of the targets nearly as it was.

    Args:
        labels (`Sequence[float]` of length n):
            Class indices in `[0, num_classes)`, or regression targets.
        fraction (`float`):
            Share of labels to change, from 0 to 1.
        seed (`int`):
            Seed of the draw, which depends on nothing else.
        num_classes (`int`, *optional*):
            Number of classes, at least 2. `None` for regression.

    Returns:
        `np.ndarray` of shape `(n,)` and the dtype of the labels: a copy.

    Raises:
        `ValueError`: `fraction` is not from 0 to 1, or the labels leave no other value to choose.
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"label_noise={fraction}: must be from 0 to 1.")
    labels = np.array(labels)
    rng = np.random.default_rng(seed)
    wrong = rng.choice(len(labels), size=round(fraction * len(labels)), replace=False)
    if len(wrong) == 0:
        return labels
    if num_classes is not None:
        labels[wrong] = (labels[wrong] + rng.integers(1, num_classes, size=len(wrong))) % num_classes
        return labels

    if len(np.unique(labels)) < 2:
        raise ValueError(f"label_noise={fraction}: all {len(labels)} training targets are equal, there is no other.")
    replacement = rng.choice(labels, size=len(wrong))
    while (same := replacement == labels[wrong]).any():
        replacement[same] = rng.choice(labels, size=same.sum())
    labels[wrong] = replacement
    return labels
