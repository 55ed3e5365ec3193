"""Where data sets come from: the Hub, or parquet files with the Hub's columns."""

from pathlib import Path

from datasets import Dataset, load_dataset


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
    """The pieces of a split, together."""
    return load_dataset("parquet", data_files={split: [str(file) for file in files]}, split=split)


def as_folder(data_dir: str) -> Path:
    """
    Raises:
        `ValueError`: there is no such folder.
    """
    if not Path(data_dir).is_dir():
        raise ValueError(f"data_dir={data_dir!r}: no such folder.")
    return Path(data_dir)
