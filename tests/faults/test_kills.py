"""Runs that are killed at a dozen moments and started again end with the bits of those that were left alone."""

import json
import subprocess
import sys

from tests.distributed.launch import REPOSITORY


def test_killed_and_resumed_equals_uninterrupted(tmp_path):
    command = ["benchmarks/faults.py", "--kills", "12", "--seconds", "240", "--interrupt_seconds", "3"]
    completed = subprocess.run(
        [sys.executable, *command, "--output", str(tmp_path / "faults.json")],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=500,
    )
    assert completed.returncode == 0, completed.stdout[-4000:]
    result = json.loads((tmp_path / "faults.json").read_text())
    assert sum(place["kills"] for place in result["killed_at"].values()) >= 5
    runs = result["runs"]
    assert sum(run["runs"] for run in runs) >= 1
    assert all(run["equal"] == run["runs"] for run in runs)
    assert all(counts["weights moved"] == 0 for counts in result["interrupts"].values())
