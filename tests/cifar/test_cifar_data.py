"""Parquet with the Hub's columns and the original archives give the same images; what is missing is named."""

import shutil

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Image, Value

from hf_sam_recipes.images.data import load_cifar
from hf_sam_recipes.images.tasks import TASKS, find_task

from . import made_cifar


def pixels_of(dataset):
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
        assert np.array_equal(pixels_of(loaded[split]), images)
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


def test_a_missing_piece_is_named(tmp_path):
    dataset = made_cifar.hub_dataset("cifar10", "train")
    for part in (0, 2):
        dataset.shard(3, part, contiguous=True).to_parquet(tmp_path / f"train-{part:05}-of-00003.parquet")
    with pytest.raises(ValueError, match=rf"{tmp_path}: train-00001-of-00003\.parquet missing; download"):
        load_cifar(TASKS["cifar10"], ["train"], str(tmp_path))


@pytest.mark.parametrize("content", ["none", "text", "half", "pages"])
def test_a_damaged_parquet_file_is_named(content, tmp_path):
    made_cifar.write_parquet(tmp_path, "cifar10")
    path = tmp_path / "cifar10/test.parquet"
    whole = path.read_bytes()
    # "pages": the part at the end, which says what is where, is good.
    damaged = {"none": b"", "text": b"404", "half": whole[: len(whole) // 2], "pages": whole[:4] + whole[54:]}
    path.write_bytes(damaged[content])
    with pytest.raises(ValueError, match=rf"{path}: cannot be read as parquet .*download it again"):
        load_cifar(TASKS["cifar10"], ["test"], str(tmp_path))


def write_labels(folder, labels, feature, split="train"):
    """The same image again and again."""
    image = made_cifar.hub_dataset("cifar10", "test").cast_column("img", Image(decode=False))[0]["img"]
    features = Features({"img": Image(), "label": feature})
    table = {"img": [image] * len(labels), "label": labels}
    Dataset.from_dict(table, features).to_parquet(folder / f"{split}.parquet")


STL10 = ["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (STL10, "class 1 is 'bird', that of cifar10 is 'automobile'; give the files of CIFAR-10"),
        (TASKS["cifar10"].labels[::-1], "class 0 is 'truck', that of cifar10 is 'airplane'"),
        ([*"0123456798"], "class 0 is '0', that of cifar10 is 'airplane'"),
        (TASKS["cifar100"].labels, "has 100 classes, cifar10 has 10"),
    ],
)
def test_classes_of_another_data_set_or_in_another_order_are_refused(names, message, tmp_path):
    write_labels(tmp_path, [0, 1], ClassLabel(names=list(names)))
    with pytest.raises(ValueError, match=message):
        load_cifar(TASKS["cifar10"], ["train"], str(tmp_path))


def numbers(name):
    return [str(index) for index in range(made_cifar.CLASSES[name])]


def test_class_names_that_are_numbers_or_spelt_otherwise_are_taken(tmp_path):
    for names in (numbers("cifar100"), [label.replace("_", " ").title() for label in TASKS["cifar100"].labels]):
        write_labels(tmp_path, [0, 26, 99], ClassLabel(names=names))
        loaded = load_cifar(TASKS["cifar100"], ["train"], str(tmp_path))["train"]
        assert loaded["label"][:] == [0, 26, 99]
        assert loaded.features["label"].names == list(TASKS["cifar100"].labels)


def test_numbers_in_alphabetical_order_are_refused(tmp_path):
    """As a folder for each class gives them: class 2 is "10"."""
    write_labels(tmp_path, [0, 2], ClassLabel(names=sorted(numbers("cifar100"))))
    with pytest.raises(ValueError, match="class 0 is '0', that of cifar100 is 'apple'"):
        load_cifar(TASKS["cifar100"], ["train"], str(tmp_path))


@pytest.mark.parametrize(
    ("name", "split", "labels", "message"),
    [
        ("cifar100", "train", [*range(10)] * 100, "has 1000 images, all with labels below 50 of the 100"),
        ("cifar100", "test", [*range(20)] * 50, "has 1000 images, all with labels below 50 of the 100"),
        (
            "cifar100",
            "train",
            [*range(100), *[7] * 500],
            "has 501 images with label 7, the whole train split.* has 500",
        ),
        (
            "cifar10",
            "test",
            [*range(10), *[1] * 1000],
            "has 1001 images with label 1, the whole test split.* has 1000",
        ),
    ],
)
def test_class_indices_of_another_data_set_are_refused(name, split, labels, message, tmp_path):
    for feature in (Value("int64"), ClassLabel(names=numbers(name))):
        write_labels(tmp_path, labels, feature, split)
        with pytest.raises(ValueError, match=message + ".*; give the files of CIFAR-"):
            load_cifar(TASKS[name], [split], str(tmp_path))
    write_labels(tmp_path, labels, ClassLabel(names=list(TASKS[name].labels)), split)
    assert load_cifar(TASKS[name], [split], str(tmp_path))[split]["label"][:] == labels


@pytest.mark.parametrize(
    "labels",
    [[*range(10)] * 99, [*range(9), 50] * 100, [*range(100)] * 10, [50] * 500],
    ids=["few", "50", "all", "one"],
)
def test_class_indices_of_a_choice_of_images_are_taken(labels, tmp_path):
    write_labels(tmp_path, labels, Value("int64"))
    assert load_cifar(TASKS["cifar100"], ["train"], str(tmp_path))["train"]["label"][:] == labels


@pytest.mark.parametrize(
    ("labels", "feature", "message"),
    [
        (["cat", "dog"], Value("string"), "has 'cat'"),
        ([1.0, 2.5], Value("float32"), r"has .*2\.5"),
        ([1, None], Value("int64"), "has .*nan"),
        ([[1], [2]], [Value("int64")], r"has \[1\]"),
    ],
)
def test_labels_that_are_no_class_indices_are_named(labels, feature, message, tmp_path):
    write_labels(tmp_path, labels, feature)
    with pytest.raises(ValueError, match=rf"train\.parquet: column 'label' {message}.*must be class indices"):
        load_cifar(TASKS["cifar10"], ["train"], str(tmp_path))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (["x.png"], r"has no whole image in row 0 .*x\.png"),
        ([3], "has no images"),
        ([b"no image"], "has no whole image in row 0 .*cannot identify image"),
    ],
    ids=["path", "number", "bytes"],
)
def test_a_column_without_images_is_named(images, message, tmp_path):
    Dataset.from_dict({"img": images, "label": [0]}).to_parquet(tmp_path / "train.parquet")
    with pytest.raises(ValueError, match=rf"train\.parquet: column 'img' {message}"):
        load_cifar(TASKS["cifar10"], ["train"], str(tmp_path))


def test_names_of_data_sets():
    assert find_task("CIFAR-100") is TASKS["cifar100"]
    with pytest.raises(ValueError, match=r"dataset_name='cifar1': did you mean 'cifar10\?'|did you mean 'cifar10'"):
        find_task("cifar1")
