"""Starts real processes: in goes a list of runs and a number of ranks, out comes what each rank had at the end."""

import json
import os
import subprocess
import sys
from pathlib import Path

import torch

from tests import harness


REPOSITORY = Path(__file__).parents[2]


def launch(ranks: int, runs: dict[str, harness.Run], folder: Path, worker: str = "worker.py", timeout: int = 300):
    """
    Returns name of the run -> list over ranks of what the worker saved.

    Raises:
        `AssertionError`: the processes failed; the message holds what they printed.
    """
    (folder / "runs.json").write_text(json.dumps({name: harness.as_json(run) for name, run in runs.items()}))
    completed = start(ranks, [str(REPOSITORY / "tests" / "distributed" / worker), str(ranks), str(folder)], timeout)
    assert completed.returncode == 0, completed.stdout[-6000:]
    return {
        name: [torch.load(folder / f"{name}-{rank}.pt", weights_only=False) for rank in range(ranks)] for name in runs
    }


def start(ranks: int, command: list[str], timeout: int) -> subprocess.CompletedProcess:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(ranks)]
    path = os.pathsep.join(map(str, (REPOSITORY, REPOSITORY / "recipes")))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": path}
    return subprocess.run(
        [*launcher, *command],
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )
