"""What several processes have left of all hosts, from one start of the processes."""

import pytest
import torch

from tests.distributed.launch import REPOSITORY, start
from tests.stack.hosts import HOSTS


WORKER = str(REPOSITORY / "tests" / "stack" / "worker.py")


def run_on_ranks(ranks, names, folder, timeout=560):
    """Name, `run | host` -> list over ranks of what was left."""
    completed = start(ranks, [WORKER, str(ranks), str(folder), *names], timeout=timeout)
    assert completed.returncode == 0, completed.stdout[-6000:]
    return {
        name: [torch.load(folder / f"{number}-{rank}.pt", weights_only=False) for rank in range(ranks)]
        for number, name in enumerate(names)
    }


@pytest.fixture(scope="session")
def on_two_ranks(tmp_path_factory):
    runs = ("stock", "sam, ρ = 0", "sam, short", "two-pass", "sampa")
    names = [f"{run} | {name}" for name, host in HOSTS.items() if host.is_here for run in runs]
    return run_on_ranks(2, names, tmp_path_factory.mktemp("two-ranks"))
