"""Made-up GLUE, in the formats in which the real one is distributed."""

from pathlib import Path

import pytest

from . import made_glue


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
