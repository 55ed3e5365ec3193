"""Starts processes that use the unmodified Hub client with the local Hub, and reads what they leave behind."""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.distributed.launch import REPOSITORY, torchrun

from .server import LocalHub


TIMEOUT = 500  # seconds: a rank that hangs fails the test


def client_environment(hub: LocalHub, folder: Path, tokens: dict[str, str]) -> dict[str, str]:
    """The environment of a client: the local Hub, a cache of its own, no token but those in `tokens`, by variable."""
    kept = {name: value for name, value in os.environ.items() if "TOKEN" not in name and "PROXY" not in name.upper()}
    return kept | {
        "HF_ENDPOINT": hub.endpoint,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(folder / "hf_home"),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(REPOSITORY),
        **tokens,
    }


@dataclass
class Launched:
    """
    A plan on its way. `wait` first.

    Args:
        folder: where the outputs, the logs and the results of the entries are.
        ranks: how many processes.
        process: the launcher.
    """

    folder: Path
    ranks: int
    process: subprocess.Popen

    def wait(self) -> "Launched":
        self.process.wait(timeout=TIMEOUT)
        assert self.process.returncode == 0, (self.folder / "launcher.log").read_text() + self.log(0)
        return self

    def results(self, name: str) -> list[dict]:
        """What every rank reports about an entry."""
        return [json.loads((self.folder / f"{name}-{rank}.json").read_text()) for rank in range(self.ranks)]

    def log(self, rank: int, name: str | None = None) -> str:
        """What a rank wrote to stderr, during one entry or at all."""
        (path,) = self.folder.glob(f"logs/*/attempt_0/{rank}/stderr.log")
        text = path.read_text()
        return text if name is None else text.split(f"\n=== {name}\n")[1].split("\n=== ")[0]


def launch(hub: LocalHub, folder: Path, ranks: int, entries: list[dict], tokens: dict[str, str]) -> Launched:
    """Start `worker.py` on `ranks` processes. The plan names tokens by variable, so no file holds one."""
    folder.mkdir(parents=True)
    plan = folder / "plan.json"
    plan.write_text(json.dumps({"ranks": ranks, "entries": entries}))
    command = [*torchrun(ranks), "--redirects", "3", "--log-dir", str(folder / "logs")]
    command += [str(Path(__file__).with_name("worker.py")), str(plan), str(folder)]
    environment = client_environment(hub, folder, tokens)
    with open(folder / "launcher.log", "w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    return Launched(folder, ranks, process)
