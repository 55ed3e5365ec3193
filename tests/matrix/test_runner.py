"""Whatever happens to runners, every run of a matrix gets one whole record, from one training run at a time."""

import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from ..conftest import REPOSITORY
from .drive import METHODS, SEEDS, TASKS
from .fake_training import is_alive


DRIVE = Path(__file__).with_name("drive.py")
NAMES = {f"{task}/{method}/seed-{seed}" for task in TASKS for method in METHODS for seed in SEEDS}
FAILING = {name for name in NAMES if "/fail/" in name}


class Matrix:
    """Records and journal of a matrix in a folder, and the runners at work on it."""

    def __init__(self, folder: Path):
        self.folder, self.journal = folder / "records", folder / "journal"

    def start(self, seconds: float, jobs: int = 1, *retry: str) -> subprocess.Popen:
        command = [sys.executable, str(DRIVE), str(self.folder), str(self.journal), str(seconds), str(jobs), *retry]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=REPOSITORY)

    def finish(self, *args) -> tuple[str, int]:
        runner = self.start(*args)
        output, _ = runner.communicate(timeout=120)
        return output, runner.returncode

    def events(self, kind: str) -> list[list[str]]:
        lines = self.journal.read_text().splitlines() if self.journal.exists() else []
        return [line.split()[1:] for line in lines if line.startswith(kind)]

    def records(self) -> dict[str, dict]:
        """Every record there is; a broken one fails the test here."""
        paths = [path for path in self.folder.rglob("*.json") if ".scratch" not in path.parts]
        return {str(path.relative_to(self.folder))[: -len(".json")]: json.loads(path.read_text()) for path in paths}

    def wait_for(self, kind: str, count: int) -> None:
        deadline = time.monotonic() + 60
        while len(self.events(kind)) < count:
            assert time.monotonic() < deadline, f"no {count} {kind} in the journal"
            time.sleep(0.01)


@pytest.fixture
def matrix(tmp_path) -> Matrix:
    return Matrix(tmp_path)


def require_whole(records: dict[str, dict]) -> None:
    for name, record in records.items():
        assert f"{record['task']}/{record['method']}/seed-{record['seed']}" == name
        assert record["run_info"]["command"] == f"train {name}"
        if name in FAILING:
            assert record["status"] == "failed"
        else:
            assert record["status"] == "finished"
            assert record["train_info"]["filling"] == list(range(2000))


def wait_until_dead(pid: int) -> None:
    deadline = time.monotonic() + 30
    while is_alive(pid):
        assert time.monotonic() < deadline, f"process {pid} outlived its runner"
        time.sleep(0.02)


def test_killed_ten_times_every_run_is_there_once_and_whole(matrix):
    rng, jobs, kills = random.Random(0), 2, 10
    for _ in range(kills):
        started = len(matrix.events("start"))
        runner = matrix.start(0.15, jobs)
        # At least one training run is under way, and then at any moment of it or of the writing of its record.
        matrix.wait_for("start", started + 1)
        time.sleep(rng.uniform(0, 0.4))
        assert runner.poll() is None
        runner.kill()
        runner.communicate()
        require_whole(matrix.records())

    before = len(matrix.records())
    assert before < len(NAMES), "the matrix was done before the last kill: nothing was tested"
    output, status = matrix.finish(0.15, jobs)
    assert (status, output.splitlines()[-1]) == (0, f"{len(NAMES - FAILING)} {len(FAILING)}"), output
    records = matrix.records()
    assert set(records) == NAMES
    require_whole(records)
    assert matrix.events("overlap") == []
    # A kill costs at most the runs in progress.
    starts = Counter(name for name, *_ in matrix.events("start"))
    assert set(starts) == NAMES
    assert sum(starts.values()) <= len(NAMES) + kills * jobs
    # What stands in a record comes from the last training run of that name, which nobody repeated.
    last = {name: int(pid) for name, pid in matrix.events("end")}
    assert {n: r["train_info"]["metrics"]["pid"] for n, r in records.items() if n not in FAILING} == last


def test_two_runners_share_a_matrix(matrix):
    runners = [matrix.start(0.2), matrix.start(0.2)]
    for runner in runners:
        output, _ = runner.communicate(timeout=120)
        assert runner.returncode == 0, output
        # Both return only when the whole matrix is done.
        assert output.splitlines()[-1] == f"{len(NAMES - FAILING)} {len(FAILING)}"
    starts = matrix.events("start")
    assert Counter(name for name, *_ in starts) == Counter(NAMES)
    assert {int(parent) for *_, parent in starts} == {runner.pid for runner in runners}
    require_whole(matrix.records())


def test_a_run_is_taken_over_from_a_killed_runner_by_one_that_waits(matrix):
    first = matrix.start(0.5, len(NAMES))
    matrix.wait_for("start", len(NAMES))
    second = matrix.start(0)
    time.sleep(0.2)
    first.kill()
    first.communicate()
    output, _ = second.communicate(timeout=120)
    assert second.returncode == 0, output
    assert set(matrix.records()) == NAMES
    assert matrix.events("overlap") == []


def test_training_does_not_outlive_a_killed_runner(matrix):
    runner = matrix.start(600)
    matrix.wait_for("start", 1)
    ((_, pid, _),) = matrix.events("start")
    runner.send_signal(signal.SIGKILL)
    runner.communicate()
    wait_until_dead(int(pid))
    assert matrix.records() == {}


def test_an_interrupt_ends_the_runs_in_progress_and_records_nothing(matrix):
    runner = matrix.start(600, 2)
    matrix.wait_for("start", 2)
    runner.send_signal(signal.SIGINT)
    output, _ = runner.communicate(timeout=60)
    assert runner.returncode != 0
    assert "KeyboardInterrupt" in output
    for _, pid, _ in matrix.events("start"):
        wait_until_dead(int(pid))
    assert matrix.records() == {}


def test_a_failed_run_is_recorded_and_stops_nobody(matrix):
    output, status = matrix.finish(0, 2)
    assert status == 0, output
    assert f"[{len(NAMES)}/{len(NAMES)}, {len(FAILING)} failed]" in output
    records = matrix.records()
    assert set(records) == NAMES
    error = records["b/fail/seed-2"]["error"]
    assert error.splitlines()[-2:] == ["RuntimeError: cannot read journal", "exit status 1"]
    assert str(matrix.folder.parent) not in json.dumps(records)
    assert str(REPOSITORY) not in json.dumps(records)
    # Not a number is no JSON.
    assert records["a/x/seed-1"]["train_info"]["metrics"]["accuracy"] is None

    starts = len(matrix.events("start"))
    matrix.finish(0, 2)
    assert len(matrix.events("start")) == starts

    # Once each, although they fail again.
    matrix.finish(0, 2, "retry")
    assert len(matrix.events("start")) == starts + len(FAILING)
    matrix.journal.with_name("mended").touch()
    output, _ = matrix.finish(0, 2, "retry")
    assert output.splitlines()[-1] == f"{len(NAMES)} 0"
    assert len(matrix.events("start")) == starts + 2 * len(FAILING)


def test_a_record_that_is_no_json_is_named(matrix):
    path = matrix.folder / "a" / "x" / "seed-1.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"status": "finis')
    output, status = matrix.finish(0)
    assert status == 1
    assert f"{path}: not a JSON file" in output
