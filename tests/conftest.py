"""Every test runs offline and on one thread."""

import os
from pathlib import Path

import pytest

from tests.garbage import spare_what_is_imported


# Before datasets and evaluate are imported, which read it once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["TOKENIZERS_PARALLELISM"] = "false"

REPOSITORY = Path(__file__).resolve().parents[1]
# Files that share what takes long to start: ranks that wait for work, a local Hub.
RANKS = ("distributed", "host", "house", "methods", "perturbations", "cifar/test_image_ranks.py")
TOGETHER = {"ranks": tuple(f"tests/{path}" for path in RANKS), "hub": ("tests/hub/",)}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Where several processes share the tests out by file, those `TOGETHER` stay in one as well."""
    from xdist.scheduler import LoadFileScheduling

    class InGroups(LoadFileScheduling):
        def _split_scope(self, nodeid):
            groups = (group for group, paths in TOGETHER.items() if nodeid.startswith(paths))
            return next(groups, super()._split_scope(nodeid))

    return InGroups(config, log) if config.getvalue("dist") == "loadfile" else None


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
