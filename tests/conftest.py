"""Every test runs offline and on one thread."""

import os
from pathlib import Path

import pytest


# Before datasets and evaluate are imported, which read it once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["TOKENIZERS_PARALLELISM"] = "false"

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def recipes() -> Path:
    """The folder with the recipe scripts and YAML files."""
    return REPOSITORY / "recipes"


@pytest.fixture(scope="session", autouse=True)
def _own_dataset_cache(tmp_path_factory):
    """Nothing is read from or left in the user's cache, by this process or by those it starts."""
    import datasets

    cache = tmp_path_factory.mktemp("datasets_cache")
    with pytest.MonkeyPatch.context() as monkeypatch:
        # One for this process, which has read the other already, and one for those to come.
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
        monkeypatch.setenv("HF_DATASETS_CACHE", str(cache))
        yield
