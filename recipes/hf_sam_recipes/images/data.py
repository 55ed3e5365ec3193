"""CIFAR from the Hub, from parquet files with its columns, or from the original pickle files: the same images."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as Pillow
from pyarrow import ArrowException

from ..common.folders import existing_folder
from ..common.sources import load_from_hub, load_parquet, parquet_patterns, read_labels
from .pickles import load_pickles
from .tasks import CifarTask


IMAGE_COLUMNS = ("img", "image")

SPLIT_SIZES = {"train": 50_000, "test": 10_000}  # images, the same number of every class
ENOUGH = 1000  # images, of which a random choice does not lack half of the classes

MISSPELT = {"cra": "crab"}  # by the Hub's CIFAR-100


def load_cifar(task: CifarTask, splits: Iterable[str], data_dir: str | None = None) -> dict[str, Dataset]:
    """
    Load the wanted splits.

    Args:
        task (`CifarTask`): The data set.
        splits (`Iterable[str]`): `"train"`, `"test"`.
        data_dir (`str`, *optional*): A folder that holds `<split>.parquet` (or the Hub's
            `<split>-00000-of-00001.parquet`) or the original python pickle files, itself or in a folder with the
            data set's name or that of the original archive. `None` means the Hub. Labels are class indices in
            alphabetical order of the names. A file without the names is taken for the data set's, except where that
            cannot be: it has more images of one class than the whole split, or a thousand images and none of the
            upper half of the classes.

    Returns:
        `dict[str, Dataset]`: by split, with the columns `image` (a pillow image when read) and `label`.

    Raises:
        `ValueError`: a folder, file, piece or column is missing or broken, or the classes or a label are not the data
            set's.
    """
    loaded = {}
    for split in splits:
        files = None if data_dir is None else _find_files(task, split, existing_folder("data_dir", data_dir))
        if files is None:
            dataset = load_from_hub(task.hub_dataset, split, "parquet files or the original python pickle files")
        elif files[0].suffix == ".parquet":
            dataset = load_parquet(files, split)
        else:
            dataset = load_pickles(files, split)
        loaded[split] = _checked(task, split, dataset, task.hub_dataset if files is None else files[0])
    return loaded


def _find_files(task: CifarTask, split: str, data_dir: Path) -> list[Path]:
    patterns = parquet_patterns(split)
    # "plain_text" is how the Hub's repository of CIFAR-10 calls the folder with its files.
    folders = [data_dir, *(data_dir / name for name in (task.name, task.folder, "plain_text"))]
    for folder in folders:
        for pattern in patterns:
            if files := sorted(folder.glob(pattern)):
                return files
        batches = [folder / name for name in task.batches[split]]
        missing = [batch.name for batch in batches if not batch.is_file()]
        if not missing:
            return batches
        if len(missing) < len(batches):
            raise ValueError(f"{folder}: {', '.join(missing)} missing; download the archive again.")
    raise ValueError(
        f"data_dir={str(data_dir)!r}: no {split} split of {task.name}. Looked for {', '.join(patterns)} and "
        f"{', '.join(task.batches[split])} in the folder and in its {task.name}/, {task.folder}/ and plain_text/."
    )


def _checked(task: CifarTask, split: str, dataset: Dataset, source: Path | str) -> Dataset:
    image_column = _find_column(IMAGE_COLUMNS, dataset, source)
    label_column = _find_column(task.label_columns, dataset, source)
    if len(dataset) == 0:
        raise ValueError(f"{source}: has no examples; download it again.")
    has_names = _has_names(task, dataset.features[label_column], source)
    labels = read_labels(dataset, label_column, source)
    if not (labels.min() >= 0 and labels.max() < len(task.labels)):
        raise ValueError(
            f"{source}: has labels from {labels.min()} to {labels.max()}, those of {task.name} are 0 to "
            f"{len(task.labels) - 1}; give the files of {task.title}."
        )
    if not has_names:
        _check_unnamed(task, split, labels.astype(int), source)
    dataset = dataset.select_columns([image_column, label_column])
    dataset = dataset.rename_columns(
        {old: new for old, new in ((image_column, "image"), (label_column, "label")) if old != new}
    )
    features = Features({"image": Image(), "label": ClassLabel(names=list(task.labels))})
    try:
        dataset = dataset if dataset.features == features else dataset.cast(features)
    except (ArrowException, OSError, TypeError, ValueError) as error:
        raise ValueError(f"{source}: column {image_column!r} has no images ({error}); download it again.") from error
    row = 0
    try:
        for row in range(len(dataset)):
            dataset[row]["image"].load()
    # pillow says with SyntaxError that a PNG file is broken.
    except (AttributeError, OSError, SyntaxError, TypeError, ValueError, Pillow.DecompressionBombError) as error:
        raise ValueError(
            f"{source}: column {image_column!r} has no whole image in row {row} ({error}); download it again."
        ) from error
    return dataset


def _has_names(task: CifarTask, feature: object, source: Path | str) -> bool:
    """Whether the file names its classes. Names of another data set are an error; numbers are none."""
    if not isinstance(feature, ClassLabel):
        return False
    fix = f"give the files of {task.title}, or another --dataset_name"
    if feature.num_classes != len(task.labels):
        raise ValueError(f"{source}: has {feature.num_classes} classes, {task.name} has {len(task.labels)}; {fix}.")
    if feature.names == [str(index) for index in range(len(task.labels))]:
        return False
    for index, (name, wanted) in enumerate(zip(feature.names, task.labels, strict=True)):
        spelt = name.lower().replace(" ", "_")
        if MISSPELT.get(spelt, spelt) != wanted:
            raise ValueError(f"{source}: class {index} is {name!r}, that of {task.name} is {wanted!r}; {fix}.")
    return True


def _check_unnamed(task: CifarTask, split: str, labels: np.ndarray, source: Path | str) -> None:
    """What no choice of the data set's images can be, and no random one."""
    counts = np.bincount(labels)
    whole, half = SPLIT_SIZES[split] // len(task.labels), len(task.labels) // 2
    if counts.max() > whole:
        found = (
            f"{counts.max()} images with label {counts.argmax()}, the whole {split} split of {task.name} has {whole}"
        )
    elif len(labels) >= ENOUGH and labels.max() < half:
        found = f"{len(labels)} images, all with labels below {half} of the {len(task.labels)} of {task.name}"
    else:
        return
    raise ValueError(f"{source}: has {found}; give the files of {task.title}, or the class names with the labels.")


def _find_column(names: tuple[str, ...], dataset: Dataset, source: Path | str) -> str:
    for name in names:
        if name in dataset.column_names:
            return name
    raise ValueError(f"{source}: no column {' or '.join(names)}; it has: {', '.join(dataset.column_names)}.")
