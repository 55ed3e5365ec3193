"""Every test runs offline, on one thread, and finds the scripts of the repository as they find each other."""

import os
import sys
from pathlib import Path

import pytest

from tests.garbage import spare_what_is_imported


# Before datasets and evaluate are imported, which read it once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["TOKENIZERS_PARALLELISM"] = "false"

REPOSITORY = Path(__file__).resolve().parents[1]
# Folders whose files stay together too, with what they share: ranks that wait for work, a local Hub.
SHARING = {"distributed": "ranks", "host": "ranks", "hub": "hub"}
for folder in ("recipes", "glue_runs", "cifar_runs"):
    sys.path.insert(0, str(REPOSITORY / folder))


def pytest_collection_modifyitems(items):
    """Where several processes share the tests out, those of one file stay together, unless a mark says otherwise."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(SHARING.get(item.path.parent.name, item.nodeid.split("::")[0])))


def pytest_collection_finish():
    spare_what_is_imported()


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
