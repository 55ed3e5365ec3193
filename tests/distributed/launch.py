"""Real processes: in goes a list of runs and a number of ranks, out comes what each rank had at the end."""

import atexit
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import torch


REPOSITORY = Path(__file__).parents[2]


def launch(ranks: int, runs: dict[str, Any], folder: Path, module: str = "tests.harness", timeout: int = 300):
    """
    Args:
        ranks: how many processes. They start once, and then wait for the runs of the next test file.
        runs: what is trained, by name, in this order. Each is a dataclass `Run` of plain values.
        folder: where the results are saved, and each run has a folder of its own, named by what stands before "@".
        module: has `Run` and `train(run, folder)`, whose result is saved.
        timeout: seconds for all of them.

    Returns name of the run -> list over ranks of what `train` returned there.

    Raises:
        `AssertionError`: the processes failed; the message holds what they printed.
    """
    task = {"module": module, "folder": str(folder), "runs": {name: asdict(run) for name, run in runs.items()}}
    _waiting_ranks(ranks).work(task, timeout)
    return {
        name: [torch.load(folder / f"{name}-{rank}.pt", weights_only=False) for rank in range(ranks)] for name in runs
    }


def start(ranks: int, command: list[str], timeout: int) -> subprocess.CompletedProcess:
    """Processes of their own for `command`, a script and its arguments, until they end."""
    command = [*torchrun(ranks), *command]
    return subprocess.run(command, stdout=subprocess.PIPE, timeout=timeout, check=False, **process_options())


def torchrun(ranks: int) -> list[str]:
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(ranks)]


def process_options() -> dict[str, Any]:
    """Of every process that tests start: how it finds the code, and where what it prints as errors goes."""
    paths = os.pathsep.join([str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": paths}
    return {"env": environment, "cwd": REPOSITORY, "stderr": subprocess.STDOUT, "text": True}


class WaitingRanks:
    """Ranks that have imported what training needs, which takes longer than most runs, and wait for work."""

    def __init__(self, ranks: int):
        self.temporary = tempfile.TemporaryDirectory(prefix="ranks-")
        self.ranks, self.folder, self.tasks = ranks, Path(self.temporary.name), 0
        self.printed = self.folder / "printed.log"
        worker = REPOSITORY / "tests" / "distributed" / "worker.py"
        command = [*torchrun(ranks), str(worker), str(ranks), str(self.folder)]
        with open(self.printed, "w") as printed:
            # They end when nobody holds the other end of their input any more, whatever has become of the tests.
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=printed, **process_options())
        atexit.register(self.end)

    def work(self, task: dict[str, Any], timeout: int) -> None:
        path = self.folder / f"{self.tasks}.json"
        self.tasks += 1
        written = path.with_suffix(".written")
        written.write_text(json.dumps(task))
        written.rename(path)
        deadline, done = time.monotonic() + timeout, [path.with_suffix(f".{rank}") for rank in range(self.ranks)]
        while not all(path.exists() for path in done):
            if self.process.poll() is not None or time.monotonic() > deadline:
                _waiting_ranks.cache_clear()
                printed = self.printed.read_text()[-6000:]
                raise AssertionError(f"{self.ranks} ranks ended with status {self.end()} or did not end: {printed}")
            time.sleep(0.02)

    def end(self) -> int:
        self.process.stdin.close()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.terminate()
        status = self.process.wait()
        self.temporary.cleanup()
        return status


_waiting_ranks = cache(WaitingRanks)
