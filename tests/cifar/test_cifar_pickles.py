"""The original archives, as they are and written again by Python 3; what is broken is named, and nothing is run."""

import codecs
import os
import pickle

import numpy as np
import pytest

from hf_sam_recipes.images.data import load_cifar
from hf_sam_recipes.images.tasks import TASKS

from . import made_cifar


class Call:
    """A pickle of it calls a function when it is read."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def dump(batch, file, protocol):
    """`protocol` is a number of Python 3's, or `"python2"`: the format of the original archives."""
    if protocol == "python2":
        made_cifar.Python2Pickler(file, protocol=2).dump(batch)
    else:
        pickle.dump(batch, file, protocol=protocol)


def write_batch(folder, protocol, **changes):
    images, labels = made_cifar.make_images("cifar10", "test")
    pixels = np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(25, -1)
    batch = {"data": pixels, "labels": labels.tolist()} | changes
    with open(folder / "test_batch", "wb") as file:
        dump({key.encode(): value for key, value in batch.items()}, file, protocol)


PROTOCOLS = ["python2", 0, 2, 3, 4, 5]


@pytest.mark.parametrize("protocol", [2, 5])
def test_a_pickle_that_runs_a_program_is_refused(protocol, tmp_path):
    write_batch(tmp_path, protocol, data=Call(os.mkdir, str(tmp_path / "touched")))
    with pytest.raises(ValueError, match=r"test_batch.*mkdir has no place"):
        load_cifar(TASKS["cifar10"], ["test"], str(tmp_path))
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_archive_that_was_written_again_gives_the_same_images(protocol, order, tmp_path):
    images, labels = made_cifar.make_images("cifar10", "test")
    pixels = images.transpose(0, 3, 1, 2).reshape(25, -1)
    write_batch(tmp_path, protocol, data=np.asarray(pixels, order=order), labels=labels)
    loaded = load_cifar(TASKS["cifar10"], ["test"], str(tmp_path))["test"]
    assert labels.dtype == np.int64
    assert loaded["label"][:] == labels.tolist()
    assert np.array_equal([np.asarray(image) for image in loaded["image"]], images)


@pytest.mark.parametrize("protocol", [2, 5])
def test_bytes_in_an_encoding_that_python_does_not_write_are_refused(protocol, tmp_path):
    """`codecs.encode` would import the module of any encoding."""
    write_batch(tmp_path, protocol, data=Call(codecs.encode, "text", "rot13"))
    with pytest.raises(ValueError, match=r"test_batch: not one.*'rot13' have no place"):
        load_cifar(TASKS["cifar10"], ["test"], str(tmp_path))


@pytest.mark.parametrize("protocol", ["python2", 2, 5])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": [0, 1]}, r"as many labels, whole numbers, as images \(25\)"),
        ({"labels": 3}, r"as many labels, whole numbers, as images \(25\)"),
        ({"labels": [0.5] * 25}, r"as many labels, whole numbers, as images \(25\)"),
        ({"labels": [f"label {i}" for i in range(25)]}, r"as many labels, whole numbers, as images \(25\)"),
        ({"labels": [[0], [1, 2]]}, r"test_batch: not one of CIFAR's python pickle files"),
        ({"labels": [10] * 25}, r"labels from 10 to 10, those of cifar10 are 0 to 9"),
        ({"data": np.zeros((25, 1024), np.uint8)}, r"test_batch: its 'data' must be bytes of shape \(n, 3072\)"),
        ({"data": np.zeros((25, 3072), np.int32)}, r"test_batch: its 'data' must be bytes"),
        ({"data": np.zeros((25, 3072), np.float32)}, r"test_batch: not one.*array of f4 has no place"),
    ],
)
def test_a_broken_batch_is_named(protocol, changes, message, tmp_path):
    write_batch(tmp_path, protocol, **changes)
    with pytest.raises(ValueError, match=message):
        load_cifar(TASKS["cifar10"], ["test"], str(tmp_path))


@pytest.mark.parametrize("protocol", ["python2", 2, 5])
@pytest.mark.parametrize("batch", [[1, 2], 3, None])
def test_a_pickle_of_something_else_is_named(protocol, batch, tmp_path):
    with open(tmp_path / "test_batch", "wb") as file:
        dump(batch, file, protocol)
    with pytest.raises(ValueError, match=r"test_batch: not one of CIFAR's python pickle files .*; download"):
        load_cifar(TASKS["cifar10"], ["test"], str(tmp_path))


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("damage", ["half", "size"])
def test_a_damaged_batch_is_named(protocol, damage, tmp_path):
    write_batch(tmp_path, protocol)
    whole = (tmp_path / "test_batch").read_bytes()
    # A text that says it has 2^62 bytes.
    broken = whole[: len(whole) // 2] if damage == "half" else b"\x80\x04\x8d" + (2**62).to_bytes(8, "little")
    (tmp_path / "test_batch").write_bytes(broken)
    with pytest.raises(ValueError, match="test_batch: not one of CIFAR's python pickle files"):
        load_cifar(TASKS["cifar10"], ["test"], str(tmp_path))
