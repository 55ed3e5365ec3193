"""What several processes have left of all cases, from one start of the processes."""

import pytest

from tests.distributed.launch import launch
from tests.host.cases import CASES, Run


def run_cases(ranks, names, folder):
    return launch(ranks, {name: Run(name, ranks) for name in names}, folder, module="tests.host.cases", timeout=580)


@pytest.fixture(scope="session")
def on_two_ranks(tmp_path_factory):
    """Name of the case -> its outcome on rank 0 and on rank 1."""
    return run_cases(2, list(CASES), tmp_path_factory.mktemp("two-ranks"))


@pytest.fixture(scope="session")
def on_four_ranks(tmp_path_factory):
    """As `on_two_ranks`, for the cases about data."""
    names = [
        "data-shuffled",
        "data-augmented-by-workers",
        "data-streamed",
        "accounting-sam",
        "accounting-stock",
        "own-batches",
    ]
    return run_cases(4, names, tmp_path_factory.mktemp("four-ranks"))


@pytest.fixture(scope="session")
def on_one_process(tmp_path_factory):
    """`on_one_process(name)` runs the case here, once."""
    done = {}

    def outcome_of(name):
        if name not in done:
            done[name] = CASES[name](1, tmp_path_factory.mktemp("one-process"))
        return done[name]

    return outcome_of
