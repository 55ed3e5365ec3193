"""Parquet with the Hub's columns and the original archives give the same images; what is missing is named."""

import shutil

import numpy as np
import pytest
from cifar_data import load_cifar
from cifar_tasks import TASKS, find_task
from datasets import ClassLabel

from . import made_cifar


def pixels(dataset):
    return np.stack([np.asarray(image.convert("RGB")) for image in dataset["image"]])


@pytest.mark.parametrize("name", made_cifar.CLASSES)
@pytest.mark.parametrize("source", ["png", "webp", "pickles"])
def test_every_source_gives_the_same_images(name, source, parquet_folder, pickle_folder, tmp_path):
    if source == "webp":
        made_cifar.write_parquet(tmp_path, name, "WEBP")
    folder = {"png": parquet_folder, "webp": tmp_path, "pickles": pickle_folder}[source]
    loaded = load_cifar(TASKS[name], ["train", "test"], str(folder))
    for split in ("train", "test"):
        images, labels = made_cifar.make_images(name, split)
        assert loaded[split].column_names == ["image", "label"]
        assert str(loaded[split].split) == split
        assert np.array_equal(pixels(loaded[split]), images)
        assert loaded[split]["label"][:] == labels.tolist()
        assert loaded[split].features["label"] == ClassLabel(names=list(TASKS[name].labels))


def test_the_classes_are_those_of_the_archives():
    assert {name: len(task.labels) for name, task in TASKS.items()} == made_cifar.CLASSES
    assert TASKS["cifar10"].labels[:3] == ("airplane", "automobile", "bird")
    assert [TASKS["cifar100"].labels[i] for i in (0, 26, 52, 99)] == ["apple", "crab", "oak_tree", "worm"]
    for task in TASKS.values():
        assert list(task.labels) == sorted(set(task.labels))


def test_the_hub_s_file_names_and_the_folder_itself_are_found_too(tmp_path):
    dataset = made_cifar.hub_dataset("cifar10", "train")
    (tmp_path / "plain_text").mkdir()
    for part in range(2):
        dataset.shard(2, part, contiguous=True).to_parquet(tmp_path / f"plain_text/train-{part:05}-of-00002.parquet")
    for folder in (tmp_path, tmp_path / "plain_text"):
        loaded = load_cifar(TASKS["cifar10"], ["train"], str(folder))["train"]
        assert loaded["label"][:] == made_cifar.make_images("cifar10", "train")[1].tolist()


def test_columns_called_image_and_label_without_class_names(tmp_path):
    dataset = made_cifar.hub_dataset("cifar10", "test").rename_column("img", "image")
    labels = dataset["label"][:]
    dataset.remove_columns("label").add_column("label", labels).to_parquet(tmp_path / "test.parquet")
    loaded = load_cifar(TASKS["cifar10"], ["test"], str(tmp_path))["test"]
    assert loaded["label"][:] == labels
    assert loaded.features["label"].names == list(TASKS["cifar10"].labels)


def test_what_is_missing_is_named(parquet_folder, pickle_folder, tmp_path):
    with pytest.raises(ValueError, match=r"data_dir='nowhere': no such folder"):
        load_cifar(TASKS["cifar10"], ["train"], "nowhere")
    with pytest.raises(ValueError, match=r"no train split of cifar10. Looked for train.parquet.*data_batch_1"):
        load_cifar(TASKS["cifar10"], ["train"], str(tmp_path))
    dataset = made_cifar.hub_dataset("cifar10", "train").rename_columns({"img": "image", "label": "name"})
    dataset.to_parquet(tmp_path / "train.parquet")
    with pytest.raises(ValueError, match=r"no column fine_label.*has: image, name"):
        load_cifar(TASKS["cifar100"], ["train"], str(tmp_path))
    with pytest.raises(ValueError, match=r"has 10 classes, cifar100 has 100"):
        load_cifar(TASKS["cifar100"], ["train"], str(parquet_folder / "cifar10"))
    folder = shutil.copytree(pickle_folder / "cifar-10-batches-py", tmp_path / "some" / "cifar-10-batches-py")
    (folder / "data_batch_3").unlink()
    with pytest.raises(ValueError, match=r"data_batch_3 missing"):
        load_cifar(TASKS["cifar10"], ["train"], str(tmp_path / "some"))
    with pytest.raises(ValueError, match=r"uoft-cs/cifar10 \(test\) cannot be loaded.*give --data_dir"):
        load_cifar(TASKS["cifar10"], ["test"])


def test_classes_in_another_order_are_refused(tmp_path):
    dataset = made_cifar.hub_dataset("cifar10", "test")
    other = ClassLabel(names=list(TASKS["cifar10"].labels[::-1]))
    dataset.cast_column("label", other).to_parquet(tmp_path / "test.parquet")
    with pytest.raises(ValueError, match="not in alphabetical order"):
        load_cifar(TASKS["cifar10"], ["test"], str(tmp_path))


def test_names_of_data_sets():
    assert find_task("CIFAR-100") is TASKS["cifar100"]
    with pytest.raises(ValueError, match=r"dataset_name='cifar1': did you mean 'cifar10\?'|did you mean 'cifar10'"):
        find_task("cifar1")
