"""Makes the recipe scripts importable as they import each other: with `recipes/` on the path."""

import os
import sys
from pathlib import Path

import pytest


# Before datasets and evaluate are imported, which read them once.
os.environ["HF_HUB_OFFLINE"] = "1"

RECIPES = Path(__file__).parents[2] / "recipes"
sys.path.insert(0, str(RECIPES))

from . import made_cifar  # noqa: E402


@pytest.fixture(scope="session")
def recipes() -> Path:
    """The folder with the recipe scripts and YAML files."""
    return RECIPES


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


@pytest.fixture(autouse=True)
def own_dataset_cache(tmp_path_factory, monkeypatch):
    """Nothing is read from or left in the user's cache."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.getbasetemp() / "datasets_cache")
