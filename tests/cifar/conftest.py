"""Made-up CIFAR, in the formats in which the real one is distributed."""

from pathlib import Path

import pytest

from . import made_cifar


@pytest.fixture(scope="session")
def parquet_folder(tmp_path_factory) -> Path:
    """Both data sets as parquet files with the Hub's columns."""
    folder = tmp_path_factory.mktemp("parquet")
    for name in made_cifar.CLASSES:
        made_cifar.write_parquet(folder, name)
    return folder


@pytest.fixture(scope="session")
def pickle_folder(tmp_path_factory) -> Path:
    """The same images as the original archives."""
    folder = tmp_path_factory.mktemp("pickles")
    for name in made_cifar.CLASSES:
        made_cifar.write_pickles(folder, name)
    return folder


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory) -> Path:
    """A tiny ViT and its processor."""
    folder = tmp_path_factory.mktemp("vit")
    made_cifar.write_model(folder, "vit")
    return folder
