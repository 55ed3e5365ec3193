"""Seeded samples, held-out parts and label noise: exact counts, nothing lost, nothing twice."""

import numpy as np
import pytest
from datasets import Dataset, NamedSplit

from hf_sam_recipes.common.examples import ExampleArguments, corrupt_labels, hold_out, take_sample


NUMBERS = Dataset.from_dict({"number": list(range(100))})


def numbers(dataset):
    return list(dataset["number"])


def test_a_sample_depends_on_the_seed_alone():
    first, again, other = (numbers(take_sample(NUMBERS, 30, seed)) for seed in (1, 1, 2))
    assert first == again != other
    assert first == sorted(set(first))
    assert len(first) == 30


@pytest.mark.parametrize("size", [None, 100, 101])
def test_a_sample_of_everything_is_the_dataset(size):
    assert numbers(take_sample(NUMBERS, size, seed=0)) == list(range(100))


def test_an_empty_sample_is_refused():
    with pytest.raises(ValueError, match="size=0: must be at least 1"):
        take_sample(NUMBERS, 0, seed=0)


def test_hold_out_splits_without_loss_or_overlap():
    train, held_out = hold_out(NUMBERS, 0.1, seed=3)
    assert len(held_out) == 10
    assert sorted(numbers(train) + numbers(held_out)) == list(range(100))
    assert numbers(hold_out(NUMBERS, 0.1, seed=3)[1]) == numbers(held_out) != numbers(hold_out(NUMBERS, 0.1, 4)[1])


def test_what_is_held_out_is_not_called_by_the_name_of_another_split():
    dataset = Dataset.from_dict({"idx": list(range(100)), "label": [0, 1] * 50}, split=NamedSplit("train"))
    arguments = ExampleArguments(holdout=0.1, max_eval_samples=5, label_noise=0.5)
    train, evaluation = arguments.choose(dataset, {}, seed=3, num_classes=2)
    assert (len(train), len(evaluation[""])) == (90, 5)
    assert (str(train.split), str(evaluation[""].split)) == ("train", "train_held_out")


def test_so_many_can_be_held_out_beside_the_evaluation_split():
    dataset = Dataset.from_dict({"idx": list(range(100)), "label": [0, 1] * 50})
    arguments = ExampleArguments(max_train_samples=50, holdout=20, holdout_beside=True, label_noise=1.0)
    train, evaluation = arguments.choose(dataset, {"": dataset}, seed=3, num_classes=2)
    # The evaluation split comes last, as the one whose plots stay.
    assert [(name, len(split)) for name, split in evaluation.items()] == [("_holdout", 20), ("", 100)]
    assert not set(train["idx"]) & set(evaluation["_holdout"]["idx"])
    assert len(train) == 30
    # What is held out has the right labels.
    assert all(
        idx % 2 == label
        for idx, label in zip(*(evaluation["_holdout"][name] for name in ("idx", "label")), strict=True)
    )
    assert all(idx % 2 != label for idx, label in zip(train["idx"], train["label"], strict=True))
    # The same examples are trained on where the held-out ones are evaluated instead.
    alone = ExampleArguments(max_train_samples=50, holdout=20, label_noise=1.0).choose(dataset, {}, 3, 2)
    assert alone[0]["idx"] == train["idx"]
    assert alone[1][""]["idx"] == evaluation["_holdout"]["idx"]
    with pytest.raises(ValueError, match="holdout_beside=True needs a holdout"):
        ExampleArguments(holdout_beside=True).choose(dataset, {}, seed=3, num_classes=2)


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 0.999, 100])
def test_hold_out_must_leave_both_parts(fraction):
    with pytest.raises(ValueError, match=f"holdout={fraction}"):
        hold_out(NUMBERS, fraction, seed=0)


@pytest.mark.parametrize("fraction", [0.0, 0.2, 0.333, 1.0])
@pytest.mark.parametrize("classes", [2, 3, 10])
def test_label_noise_changes_exactly_that_many_labels(fraction, classes):
    labels = np.arange(1000) % classes
    noisy = corrupt_labels(labels, fraction, seed=0, num_classes=classes)
    assert (noisy != labels).sum() == round(fraction * 1000)
    assert noisy.dtype == labels.dtype
    assert noisy.min() >= 0
    assert noisy.max() < classes
    assert (labels == np.arange(1000) % classes).all(), "the clean labels must stay as they are"


def test_label_noise_depends_on_the_seed_alone():
    labels = np.arange(1000) % 3
    first, again, other = (corrupt_labels(labels, 0.4, seed, num_classes=3) for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


def test_every_other_class_is_equally_likely():
    noisy = corrupt_labels(np.zeros(30_000, dtype=int), 1.0, seed=0, num_classes=4)
    counts = np.bincount(noisy, minlength=4)
    # Standard deviation of each count: sqrt(30000 * 1/3 * 2/3) = 82.
    assert counts[0] == 0
    assert np.abs(counts[1:] - 10_000).max() < 4 * 82


def test_noise_on_scores_takes_other_scores_of_the_training_set():
    scores = np.array([0.0, 0.5, 0.5, 2.25, 5.0] * 200, dtype=np.float32)
    noisy = corrupt_labels(scores, 0.3, seed=0)
    assert (noisy != scores).sum() == 300
    assert set(noisy) == set(scores)
    assert noisy.dtype == np.float32


def test_impossible_noise_is_refused():
    with pytest.raises(ValueError, match=r"label_noise=1\.5: must be from 0 to 1"):
        corrupt_labels([0, 1], 1.5, seed=0, num_classes=2)
    with pytest.raises(ValueError, match="all 4 training targets are equal"):
        corrupt_labels([1.0] * 4, 0.5, seed=0)


def test_the_card_is_told_what_is_not_the_default():
    assert ExampleArguments().describe(seed=7) == ""
    told = ExampleArguments(label_noise=0.4, max_train_samples=64).describe(seed=7).splitlines()
    assert [line.split(". ")[0] for line in told] == [
        "- `max_train_samples`: 64",
        "- `label_noise`: 0.4",
        "- All of this was drawn with seed 7.",
    ]
    told = ExampleArguments(holdout=0.25, max_eval_samples=10).describe(seed=7).splitlines()
    assert [line.split(". ")[0] for line in told[:2]] == ["- `holdout`: 0.25", "- `max_eval_samples`: 10"]
