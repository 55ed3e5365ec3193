"""What a model sees is a function of the seed, the epoch and the number of the image, however it is read."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from datasets import Dataset, NamedSplit
from PIL import Image

from hf_sam_recipes.images.examples import Augmentation, AugmentedExamples, EpochSampler

from . import made_cifar, runs


def outcomes(image: np.ndarray, padding: int) -> dict[bytes, tuple[int, int, bool]]:
    """Every part of the padded image, mirrored or not, made with NumPy alone."""
    height, width, _ = image.shape
    padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    parts = {}
    for top in range(2 * padding + 1):
        for left in range(2 * padding + 1):
            part = padded[top : top + height, left : left + width]
            parts[part.tobytes()] = (top, left, False)
            parts[part[:, ::-1].tobytes()] = (top, left, True)
    return parts


def test_all_crops_and_both_sides_are_equally_frequent():
    image = made_cifar.make_images("cifar10", "train")[0][0][:20]
    expected, draws = outcomes(image, padding=1), 3600
    rng = np.random.default_rng(0)
    seen = Counter(
        expected[np.asarray(Augmentation(padding=1)(Image.fromarray(image), rng)).tobytes()] for _ in range(draws)
    )
    assert len(seen) == len(expected) == 18
    # 200 each; five standard deviations are 69.
    assert all(abs(count - draws / 18) < 69 for count in seen.values())


def test_an_option_does_not_change_what_the_other_one_draws():
    image = Image.fromarray(made_cifar.make_images("cifar10", "train")[0][0])
    parts = outcomes(np.asarray(image), padding=3)
    for seed in range(20):
        both, crop, flip, none = (
            np.asarray(Augmentation(padding, mirror)(image, np.random.default_rng(seed)))
            for padding, mirror in ((3, True), (3, False), (0, True), (0, False))
        )
        assert parts[crop.tobytes()][:2] == parts[both.tobytes()][:2]
        assert not parts[crop.tobytes()][2]
        assert parts[flip.tobytes()][:2] == parts[none.tobytes()][:2] == (3, 3)
        assert np.array_equal(none, image)


def test_examples_are_of_the_split_that_their_images_are_of():
    for split in ("train", "test"):
        images = Dataset.from_dict({"label": [0]}, split=NamedSplit(split))
        examples = AugmentedExamples(images, made_cifar.make_processor("vit"), Augmentation(), seed=0)
        assert (str(examples.split), str(examples.unaugmented().split)) == (split, split)


def test_an_example_is_the_processor_s_view_of_the_augmented_image():
    processor = made_cifar.make_processor("vit")
    images = made_cifar.hub_dataset("cifar10", "train").rename_column("img", "image")
    examples = AugmentedExamples(images, processor, Augmentation(padding=2), seed=1)
    raw, labels = made_cifar.make_images("cifar10", "train")
    views = {
        processor(images=np.frombuffer(part, np.uint8).reshape(32, 32, 3), return_tensors="np")[
            "pixel_values"
        ].tobytes()
        for part in outcomes(raw[7], padding=2)
    }
    for epoch in range(5):
        example = examples[(epoch, 7)]
        assert example["pixel_values"].shape == (3, 16, 16)
        assert example["pixel_values"].tobytes() in views
        assert example["labels"] == labels[7]


def test_an_example_depends_on_seed_epoch_and_index_only():
    train, _ = runs.make_examples()
    other_seed = AugmentedExamples(train.images, train.processor, train.augmentation, seed=runs.SEED + 1)
    again, _ = runs.make_examples()
    first = [train[(0, i)]["pixel_values"] for i in range(20)]
    # Read again in another order, by another object.
    assert all(np.array_equal(again[(0, i)]["pixel_values"], first[i]) for i in reversed(range(20)))
    for other in ([train[(1, i)] for i in range(20)], [other_seed[(0, i)] for i in range(20)]):
        same = sum(np.array_equal(one["pixel_values"], pixels) for one, pixels in zip(other, first, strict=True))
        # 50 possible outcomes each.
        assert same <= 4


def test_a_sampler_that_knows_no_epochs_is_refused():
    train, _ = runs.make_examples()
    with pytest.raises(TypeError):
        train[3]


def test_every_epoch_has_an_order_of_its_own():
    sampler = EpochSampler(50, seed=1)
    orders = {}
    for epoch in (0, 1, 2, 0):
        sampler.set_epoch(epoch)
        keys = list(sampler)
        assert {key[0] for key in keys} == {epoch}
        order = tuple(key[1] for key in keys)
        assert sorted(order) == list(range(50))
        assert orders.setdefault(epoch, order) == order
    assert len(set(orders.values())) == 3
    assert list(EpochSampler(3, seed=1, shuffle=False)) == [(0, 0), (0, 1), (0, 2)]


def windows(epochs: int, shards: int = 1, shard: int = 0) -> list[str]:
    """Digests of the batches that a shard reads, computed without any loader."""
    train, _ = runs.make_examples()
    digests = []
    for epoch in range(epochs):
        order = np.random.default_rng((runs.SEED, epoch)).permutation(runs.EXAMPLES).reshape(-1, runs.BATCH)
        digests += [
            runs.digest(torch.from_numpy(np.stack([train[(epoch, i)]["pixel_values"] for i in batch])))
            for batch in order.tolist()[shard::shards]
        ]
    return digests


def seen_by(method: str, stream: list[str], updates: int) -> list[str]:
    """The forward passes of one process: one per update; two; or the first h, then p and the next h."""
    if method == "none":
        return stream[:updates]
    if method == "sam":
        return [batch for batch in stream[:updates] for _ in range(2)]
    return [stream[0]] + [batch for pair in pairwise(stream[: updates + 1]) for batch in pair]


WORKERS = {
    "no workers": {},
    "workers": {"dataloader_num_workers": 2},
    "persistent workers": {"dataloader_num_workers": 2, "dataloader_persistent_workers": True},
}


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("method", ["none", "sam", "sampa"])
def test_the_model_sees_what_seed_epoch_and_index_say(method, workers, tmp_path):
    result = runs.train(runs.Run(method, arguments=WORKERS[workers]), tmp_path)
    assert result["updates"] == 3 * runs.UPDATES_PER_EPOCH
    assert result["batches"] == seen_by(method, windows(4), result["updates"])


@pytest.mark.parametrize("method", ["sam", "sampa"])
def test_a_resumed_run_goes_on_with_the_same_pixels(method, tmp_path):
    """Interrupted in the middle of the second epoch, after which SAMPa has read one window more."""
    arguments = {"dataloader_num_workers": 1, "save_strategy": "steps", "save_steps": 16}
    whole = runs.train(runs.Run(method, arguments=arguments), tmp_path / "whole")
    runs.train(runs.Run(method, arguments=arguments, stop=16), tmp_path / "cut")
    resume_from = str(tmp_path / "cut" / "checkpoint-16")
    resumed = runs.train(runs.Run(method, arguments=arguments, resume_from=resume_from), tmp_path / "cut")
    rest = len(resumed["batches"])
    assert rest == 2 * (33 - 16)
    assert resumed["batches"] == whole["batches"][-rest:]
    assert all(torch.equal(resumed["weights"][name], value) for name, value in whole["weights"].items())


def test_options_that_images_cannot_have_are_refused(tmp_path):
    with pytest.raises(ValueError, match="crop_padding=-1: must be at least 0"):
        Augmentation(padding=-1)
    with pytest.raises(ValueError, match="train_sampling_strategy='group_by_length': images need"):
        runs.train(runs.Run(arguments={"train_sampling_strategy": "group_by_length"}), tmp_path)
