"""Do what is missing of a matrix of runs, each in a process of its own."""

import json
import os
import shutil
import signal
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ..common.entry import is_at_work
from .environment import git_commit, versions
from .records import FAILED, FINISHED, RecordStore, last_error, require_settings, without_folders
from .run import RESULT_FOLDER, Run


RESULT_FILE = "result.json"
POLL_SECONDS = 0.5
# Of the log of a failed run. torchrun's own report comes after the error of the rank, and is some fifty lines long.
ERROR_LINES = 100
# So many runs that fail for one reason, before any has finished, end the runner.
FAILED_ALIKE = 3


class MatrixRunner:
    """
    Does the runs that have no record yet, `jobs` at a time. Any number of runners can share a folder on one machine:
    a run belongs to the one that holds its lock. A run in other hands is waited for, and taken over if it is dropped.

    Args:
        runs (`Sequence[Run]`): The matrix.
        store (`RecordStore`): Where the records are.
        jobs (`int`, *optional*, defaults to 1): How many runs side by side.
        retry_failed (`bool`, *optional*, defaults to `False`): Do runs again, once, that have failed before.
        keep_going (`bool`, *optional*, defaults to `False`): Also where the first runs have all failed alike.
        say (`Callable`, *optional*): Takes the lines of progress.

    Raises:
        `ValueError`: `jobs` is below 1, two runs have the same name, or the folder has runs with other settings.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        store: RecordStore,
        jobs: int = 1,
        retry_failed: bool = False,
        keep_going: bool = False,
        say: Callable[[str], None] = lambda line: print(line, flush=True),
    ):
        if jobs < 1:
            raise ValueError(f"jobs={jobs}: must be at least 1.")
        names = [run.name for run in runs]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(
                f"{', '.join(repeated)} is in the matrix more than once: name each seed, task, method once."
            )
        self.runs, self.store, self.jobs, self.say = list(runs), store, jobs, say
        require_same_settings(self.runs, store)
        self._waiting = list(runs)
        self._to_retry = {}
        if retry_failed:
            records = {run.name: store.read(run.name) for run in runs}
            self._to_retry = {name: record["run_info"] for name, record in records.items() if _failed(record)}
        self._processes: set[subprocess.Popen] = set()
        self._durations: list[float] = []
        self._done: dict[str, str] = {}
        self._errors: list[Exception] = []
        self._reasons: list[str] = []
        self._keep_going = keep_going
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._versions = versions()

    @is_at_work()
    def run(self) -> dict[str, int]:
        """
        Returns when every run has a record, or when the first `FAILED_ALIKE` ones, and none has finished, have failed
        for the same reason.

        Returns:
            `dict[str, int]`: number of `"finished"` and of `"failed"` runs of the whole matrix.

        Raises:
            `KeyboardInterrupt`: as sent by the user. The runs in progress are ended and leave no record.
        """
        threads = [threading.Thread(target=self._work, daemon=True) for _ in range(self.jobs)]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                # A join without a timeout would not let an interrupt through.
                while thread.is_alive():
                    thread.join(timeout=POLL_SECONDS)
        finally:
            self._stop()
            for thread in threads:
                thread.join()
        if self._errors:
            raise self._errors[0]
        counts = {FINISHED: 0, FAILED: 0}
        for status in self._done.values():
            counts[status] += 1
        return counts

    def _work(self) -> None:
        try:
            while not self._stopping.is_set():
                with self._lock:
                    candidates = list(self._waiting)
                if not candidates:
                    return
                if not any(self._take(run) for run in candidates):
                    self._stopping.wait(POLL_SECONDS)
        except Exception as error:
            # A full disk, say: nothing that one run is to blame for.
            self._errors.append(error)
            self._stop()

    def _take(self, run: Run) -> bool:
        """Whether this run is off the list: it has a record, or now gets one."""
        if self._stopping.is_set() or self._drop_if_recorded(run):
            return True
        with self.store.claim(run.name) as claim:
            if claim is None:
                return False
            # Somebody may have finished it between the look and the claim.
            if self._drop_if_recorded(run):
                return True
            with self._lock:
                if run not in self._waiting:
                    return True
                self._waiting.remove(run)
            self._execute(run, claim)
        return True

    def _drop_if_recorded(self, run: Run) -> bool:
        record = self.store.read(run.name)
        if record is None or (_failed(record) and self._to_retry.get(run.name) == record["run_info"]):
            return False
        with self._lock:
            if run in self._waiting:
                self._waiting.remove(run)
                self._done[run.name] = record["status"]
        return True

    def _execute(self, run: Run, claim: int) -> None:
        folder = self.store.work_folder(run.name)
        # Left behind by a runner that was killed.
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        # The code that the run is about to import, which may have changed since the runner began.
        date, start, commit = datetime.now(timezone.utc), time.monotonic(), git_commit()
        process = self._start(run, folder, claim)
        if process is None:
            return
        status = process.wait()
        with self._lock:
            self._processes.discard(process)
        process.stdin.close()
        if self._stopping.is_set() and status != 0:
            return

        duration = time.monotonic() - start
        run_info = {
            "command": run.shown_command,
            "date": date.isoformat(timespec="seconds"),
            "duration_seconds": round(duration, 3),
            "jobs_side_by_side": self.jobs,
            **commit,
        }
        record = self._record(run, run_info, status, folder)
        self.store.write(run.name, record)
        shutil.rmtree(folder, ignore_errors=True)
        with self._lock:
            self._done[run.name] = record["status"]
            self._durations.append(duration)
            self.say(f"{self._state()} {run.name}: {_outcome(record)} after {_time(duration)}{self._time_left()}")
            hopeless = self._is_hopeless(record)
        if hopeless:
            self.say(
                f"stopped: the first {FAILED_ALIKE} runs failed alike, and none has finished. Mend what they say, and "
                "repeat with --retry_failed; or go on with --keep_going."
            )
            self._stop()

    def _is_hopeless(self, record: dict[str, Any]) -> bool:
        if self._keep_going or self._stopping.is_set():
            return False
        self._reasons += [last_error(record)] if _failed(record) else []
        alike = len(self._reasons) == FAILED_ALIKE and len(set(self._reasons)) == 1
        return alike and FINISHED not in self._done.values()

    def _start(self, run: Run, folder: Path, claim: int) -> subprocess.Popen | None:
        """The training process, unless the runner has been told to stop."""
        with open(self.store.log_path(run.name), "wb") as log, self._lock:
            if self._stopping.is_set():
                return None
            self.say(f"{self._state()} {run.name}: started")
            process = subprocess.Popen(
                [argument.replace(RESULT_FOLDER, str(folder)) for argument in run.command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", **os.environ},
                # An interrupt from the keyboard is for the runner, which then ends its processes itself.
                start_new_session=True,
                pass_fds=(claim,),
            )
            self._processes.add(process)
        return process

    def _record(self, run: Run, run_info: dict[str, Any], status: int, folder: Path) -> dict[str, Any]:
        result = _read_result(folder / RESULT_FILE) if status == 0 else None
        record = {
            "status": FAILED if result is None else FINISHED,
            "task": run.task,
            "method": run.method,
            "seed": run.seed,
            "rho": run.rho,
            "run_info": run_info,
            "meta_info": {"settings": run.settings, "versions": self._versions},
        }
        if result is None:
            return record | {"error": self._error(run, status)}
        record["train_info"] = result["train_info"]
        record["meta_info"] |= result["meta_info"]
        return record

    def _error(self, run: Run, status: int) -> str:
        log = self.store.log_path(run.name).read_text(encoding="utf-8", errors="replace").splitlines()
        if status < 0:
            reason = f"ended by {signal.Signals(-status).name}"
        else:
            reason = f"exit status {status}" if status else f"exit status 0, but no {RESULT_FILE}"
        return without_folders("\n".join([*log[-ERROR_LINES:], reason]))

    def _stop(self) -> None:
        with self._lock:
            self._stopping.set()
            processes = list(self._processes)
        for process in processes:
            # Ranks that a launcher has put into sessions of their own see the closed pipe.
            process.stdin.close()
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def _state(self) -> str:
        failed = sum(status == FAILED for status in self._done.values())
        return f"[{len(self._done)}/{len(self.runs)}{f', {failed} failed' if failed else ''}]"

    def _time_left(self) -> str:
        left = len(self.runs) - len(self._done)
        if not left:
            return ""
        return f"; about {_time(statistics.mean(self._durations) * left / self.jobs)} left"


def _read_result(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return None


def _failed(record: dict[str, Any] | None) -> bool:
    return record is not None and record["status"] == FAILED


def _outcome(record: dict[str, Any]) -> str:
    if _failed(record):
        return f"failed ({record['error'].splitlines()[-1]}: {last_error(record)})"
    metrics = record["train_info"].get("metrics", {})
    shown = [f"{name} {value:.4f}" for name, value in metrics.items() if isinstance(value, float)]
    return ", ".join(shown) or FINISHED


def _time(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s" if minutes else f"{seconds} s"


def require_same_settings(runs: Sequence[Run], store: RecordStore) -> None:
    """
    Raises:
        `ValueError`: a run has a record, but of other settings, another method or another radius.
    """
    for run in runs:
        record = store.read(run.name)
        if record is None:
            continue
        require_settings(store.path(run.name), record)
        there = {"method": record["method"], "rho": record["rho"], **record["meta_info"]["settings"]}
        now = {"method": run.method, "rho": run.rho, **run.settings}
        other = [name for name in there.keys() | now.keys() if there.get(name) != now.get(name)]
        if other:
            old, new = (", ".join(f"{name} {side.get(name)}" for name in sorted(other)) for side in (there, now))
            raise ValueError(
                f"{store.path(run.name)} was made with {old}, but now it is {new}: such numbers must not share a "
                "table. Give the new settings a study of their own, or delete the records of the old ones."
            )
