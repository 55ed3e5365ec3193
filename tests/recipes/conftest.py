"""Makes the recipe scripts importable as they import each other: with `recipes/` on the path."""

import os
import sys
from pathlib import Path

import pytest


# Before datasets and evaluate are imported, which read them once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

RECIPES = Path(__file__).parents[2] / "recipes"
sys.path.insert(0, str(RECIPES))

from . import made_glue  # noqa: E402


@pytest.fixture(scope="session")
def recipes() -> Path:
    """The folder with the recipe scripts and YAML files."""
    return RECIPES


@pytest.fixture(scope="session")
def parquet_folder(tmp_path_factory) -> Path:
    """All nine tasks as parquet files with the Hub's columns."""
    folder = tmp_path_factory.mktemp("parquet")
    for task in made_glue.TASKS:
        made_glue.write_parquet(folder, task)
    return folder


@pytest.fixture(scope="session")
def tsv_folder(tmp_path_factory) -> Path:
    """The same examples as the official TSV files."""
    folder = tmp_path_factory.mktemp("tsv")
    for task in made_glue.TASKS:
        made_glue.write_tsv(folder, task)
    return folder


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory) -> Path:
    """A tiny BERT without dropout, so that runs on one and two ranks can be compared."""
    folder = tmp_path_factory.mktemp("model")
    made_glue.write_model(folder, dropout=0.0)
    return folder


@pytest.fixture(autouse=True)
def own_dataset_cache(tmp_path_factory, monkeypatch):
    """Nothing is read from or left in the user's cache."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.getbasetemp() / "datasets_cache")
