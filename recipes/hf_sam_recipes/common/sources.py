"""Where data sets come from: the Hub, or parquet files with the Hub's columns."""

import re
from pathlib import Path

import numpy as np
from datasets import Dataset, load_dataset
from datasets.exceptions import DatasetsError
from pyarrow import ArrowException


PIECE = re.compile(r"-(\d+)-of-(\d+)")


def load_from_hub(dataset: str, split: str, instead: str, config: str | None = None) -> Dataset:
    """
    A split of a data set on the Hub, or in its cache.

    Args:
        instead (`str`): The files that `--data_dir` can have instead, for the error.
        config (`str`, *optional*): One of several parts of the data set.

    Raises:
        `ValueError`: neither has it.
    """
    try:
        return load_dataset(dataset, config, split=split)
    except OSError as error:
        part = split if config is None else f"{config}, {split}"
        raise ValueError(
            f"{dataset} ({part}) cannot be loaded from the Hub, nor from its cache: {error}. "
            f"Without a network, give --data_dir a folder with {instead}."
        ) from error


def parquet_patterns(split: str) -> list[str]:
    """Names of files with a split: in one piece, or in the Hub's pieces."""
    return [f"{split}.parquet", f"{split}-*-of-*.parquet"]


def load_parquet(files: list[Path], split: str) -> Dataset:
    """
    The pieces of a split, together.

    Raises:
        `ValueError`: a piece is missing or is there twice, or a file is damaged, is not parquet, or has no examples.
    """
    _check_complete(files, split)
    try:
        return load_dataset("parquet", data_files={split: [str(file) for file in files]}, split=split)
    except (DatasetsError, ArrowException, OSError, ValueError) as error:
        # datasets puts a sentence without a reason around some of pyarrow's errors.
        reason = " ".join(str(error.__cause__ or error).split()).rstrip(".")
        raise ValueError(
            f"{', '.join(map(str, files))}: cannot be read as parquet with examples ({reason}); download it again."
        ) from error


def _check_complete(files: list[Path], split: str) -> None:
    pieces = [match for file in files if (match := PIECE.search(file.name))]
    if not pieces:
        return
    folder, (number, total) = files[0].parent, pieces[0].groups()
    found = {int(piece[1]) for piece in pieces}
    missing = [f"{split}-{i:0{len(number)}}-of-{total}.parquet" for i in range(int(total)) if i not in found]
    if missing:
        raise ValueError(f"{folder}: {', '.join(missing)} missing; download the {split} split again.")
    if len(files) != int(total):
        names = ", ".join(file.name for file in files)
        raise ValueError(f"{folder}: the {split} split has {int(total)} pieces, remove what is none of them: {names}.")


def read_labels(dataset: Dataset, column: str, source: Path | str, whole: bool = True) -> np.ndarray:
    """
    Labels of shape `(n,)`.

    Args:
        source (`Path` or `str`): Where the data set is from, for the error.
        whole (`bool`, *optional*, defaults to `True`): Whether they are class indices, not scores.

    Raises:
        `ValueError`: they are not numbers, or not whole ones.
    """
    labels = np.asarray(dataset.with_format("numpy")[column][:])
    is_number = labels.ndim == 1 and labels.dtype.kind in "biuf"
    if not is_number or (whole and (labels % 1 != 0).any()):
        wrong = labels[labels % 1 != 0][0] if is_number else dataset[column][0]
        expected = "class indices" if whole else "numbers"
        raise ValueError(f"{source}: column {column!r} has {wrong!r}; its labels must be {expected}.")
    return labels
