"""CIFAR from the Hub, from parquet files with its columns, or from the original pickle files: the same images."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from cifar_pickles import load_pickles
from cifar_tasks import CifarTask
from common.sources import as_folder, load_from_hub, load_parquet, parquet_patterns
from datasets import ClassLabel, Dataset, Features, Image


IMAGE_COLUMNS = ("img", "image")


def load_cifar(task: CifarTask, splits: Iterable[str], data_dir: str | None = None) -> dict[str, Dataset]:
    """
    Load the wanted splits.

    Args:
        task (`CifarTask`): The data set.
        splits (`Iterable[str]`): `"train"`, `"test"`.
        data_dir (`str`, *optional*): A folder that holds `<split>.parquet` (or the Hub's
            `<split>-00000-of-00001.parquet`) or the original python pickle files, itself or in a folder with the
            data set's name or that of the original archive. `None` means the Hub.

    Returns:
        `dict[str, Dataset]`: by split, with the columns `image` (a pillow image when read) and `label`.

    Raises:
        `ValueError`: a folder, file or column is missing or broken, or a label is not one of the data set's.
    """
    loaded = {}
    for split in splits:
        files = None if data_dir is None else _find_files(task, split, as_folder(data_dir))
        if files is None:
            dataset = load_from_hub(task.hub_dataset, split, "parquet files or the original python pickle files")
        elif files[0].suffix == ".parquet":
            dataset = load_parquet(files, split)
        else:
            dataset = load_pickles(files, split)
        loaded[split] = _checked(task, dataset, task.hub_dataset if files is None else files[0])
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


def _checked(task: CifarTask, dataset: Dataset, source: Path | str) -> Dataset:
    image_column = _find_column(IMAGE_COLUMNS, dataset, source)
    label_column = _find_column(task.label_columns, dataset, source)
    if len(dataset) == 0:
        raise ValueError(f"{source}: has no examples.")
    feature = dataset.features[label_column]
    if isinstance(feature, ClassLabel) and feature.num_classes != len(task.labels):
        raise ValueError(f"{source}: has {feature.num_classes} classes, {task.name} has {len(task.labels)}.")
    # Spelling may differ (the Hub's CIFAR-100 has "cra" for "crab"), the order may not.
    if isinstance(feature, ClassLabel) and feature.names != sorted(feature.names):
        raise ValueError(f"{source}: its classes are not in alphabetical order, as those of {task.name} are.")
    labels = np.asarray(dataset.with_format("numpy")[label_column][:])
    if not (labels.min() >= 0 and labels.max() < len(task.labels)):
        raise ValueError(
            f"{source}: has labels from {labels.min()} to {labels.max()}, those of {task.name} are 0 to "
            f"{len(task.labels) - 1}."
        )
    dataset = dataset.select_columns([image_column, label_column])
    dataset = dataset.rename_columns(
        {old: new for old, new in ((image_column, "image"), (label_column, "label")) if old != new}
    )
    features = Features({"image": Image(), "label": ClassLabel(names=list(task.labels))})
    return dataset if dataset.features == features else dataset.cast(features)


def _find_column(names: tuple[str, ...], dataset: Dataset, source: Path | str) -> str:
    for name in names:
        if name in dataset.column_names:
            return name
    raise ValueError(f"{source}: no column {' or '.join(names)}; it has: {', '.join(dataset.column_names)}.")
