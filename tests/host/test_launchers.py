"""Started by accelerate instead of torchrun: by its command line, and from a notebook's function."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests import harness
from tests.distributed.launch import process_options


RUN = harness.Run(method="sampa", config={"rho": 0.3}, examples=24)
BY_COMMAND = """
import sys, torch
from tests import harness
from tests.host.test_launchers import RUN
torch.save(harness.train(RUN, sys.argv[1]), sys.argv[1] + "/0.pt")
"""
# debug_launcher is what notebook_launcher is to accelerators, for processes on a CPU.
BY_FUNCTION = """
import sys, torch
from accelerate import debug_launcher
from tests import harness
from tests.host.test_launchers import RUN

def train(folder):
    result = harness.train(RUN, folder)
    assert torch.distributed.get_world_size() == 2
    torch.save(result, f"{folder}/{torch.distributed.get_rank()}.pt")

if __name__ == "__main__":
    debug_launcher(train, (sys.argv[1],), num_processes=2)
"""


def run(command: list[str], script: str, folder: Path, ranks: int) -> list[dict]:
    path = folder / "script.py"
    path.write_text(script)
    completed = subprocess.run(
        [sys.executable, *command, str(path), str(folder)],
        stdout=subprocess.PIPE,
        timeout=240,
        check=False,
        **process_options(),
    )
    assert completed.returncode == 0, completed.stdout[-4000:]
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(ranks)]


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    return harness.train(RUN, tmp_path_factory.mktemp("expected"))["weights"]


def test_accelerate_launch(expected, tmp_path):
    command = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1", "--mixed_precision", "no"]
    (result,) = run(command, BY_COMMAND, tmp_path, ranks=1)
    assert harness.same_bits(result["weights"], expected)


def test_a_function_on_two_processes(expected, tmp_path):
    first, second = run([], BY_FUNCTION, tmp_path, ranks=2)
    assert first["trace"].hashes == second["trace"].hashes
    assert harness.largest_difference(first["weights"], expected) < 1e-10
