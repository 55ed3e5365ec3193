"""Where the record of a run lies, and how it gets there whole or not at all."""

import fcntl
import json
import math
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


FINISHED, FAILED = "finished", "failed"
SCRATCH = ".scratch"

# The last line of a traceback, or a mistake of the user.
ERROR_LINE = re.compile(r"error: |[\w.]*(Error|Exception|Interrupt|Exit)\b")
# Folders of an absolute path; not those of an URL, nor of a relative path.
FOLDERS = re.compile(r"(?<![\w:/.~-])/(?:[\w.@+~-]+/)+")


class RecordStore:
    """
    A folder with one JSON file per run, `<name of the run>.json`. Whatever else the runner needs lies in its
    `.scratch/`, which git ignores and which can be deleted when no runner is at work.

    Args:
        folder (`Path`): The folder; made when first written to.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.scratch = self.folder / SCRATCH

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def log_path(self, name: str) -> Path:
        return self.scratch / f"{_flat(name)}.log"

    def work_folder(self, name: str) -> Path:
        return self.scratch / f"{_flat(name)}.work"

    def read(self, name: str) -> dict[str, Any] | None:
        """
        The record of a run, `None` where there is none.

        Raises:
            `ValueError`: the file is no record.
        """
        path = self.path(name)
        return _read(path) if path.exists() else None

    def read_all(self) -> dict[Path, dict[str, Any]]:
        """
        All records by file, in the order of their names.

        Raises:
            `ValueError`: a file is no record.
        """
        paths = (path for path in self.folder.rglob("*.json") if SCRATCH not in path.relative_to(self.folder).parts)
        return {path: _read(path) for path in sorted(paths)}

    def write(self, name: str, record: dict[str, Any]) -> None:
        """Write the record of a run: whoever reads sees the old file or the whole new one. Not-finite becomes null."""
        self.prepare()
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(_finite(record), indent=1, allow_nan=False, ensure_ascii=False) + "\n"
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=self.scratch, delete=False) as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        # A temporary file is for its owner's eyes only; a record is an ordinary file.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(file.name, 0o666 & ~umask)
        os.replace(file.name, path)

    def prepare(self) -> None:
        self.scratch.mkdir(parents=True, exist_ok=True)
        ignore = self.scratch / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n")

    @contextmanager
    def claim(self, name: str) -> Iterator[int | None]:
        """
        Keep every other runner from this run, on this machine, until the end of the block. Yields the descriptor of
        the lock, or `None` if somebody else has claimed the run.

        The kernel drops the lock with the last process that has the descriptor open, however that process ends, so
        there are no stale claims. Hand the descriptor to the training process: then a run whose runner was killed
        stays claimed until it is gone too.
        """
        self.prepare()
        descriptor = os.open(self.scratch / f"{_flat(name)}.lock", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield None
            else:
                yield descriptor
        finally:
            # The file stays: removing it would let two runners lock two files of the same name.
            os.close(descriptor)


def without_folders(text: str) -> str:
    """The text with every absolute path cut to its last part, so that a record says nothing of the machine's disks."""
    return FOLDERS.sub("", text)


def _flat(name: str) -> str:
    return name.replace("/", "--")


def _read(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not a JSON file ({error}); delete it, and the run will be repeated.") from error
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}); move it out of the folder.") from error
    if not isinstance(record, dict) or record.get("status") not in (FINISHED, FAILED):
        raise ValueError(f"{path}: not the record of a run; move it out of the folder.")
    return record


# What every record has, by the way to it, and what that of a finished run has besides.
SHAPE = {
    "task": str,
    "method": str,
    "seed": int,
    "rho": float | int | None,
    "run_info.date": str,
    "run_info.git_commit": str | None,
    "run_info.uncommitted_changes": bool | None,
    "run_info.jobs_side_by_side": int,
    "meta_info.settings.options": dict,
}
SHAPE_OF_FAILED = {"error": str}
SHAPE_OF_FINISHED = {
    "train_info.metrics": dict,
    "train_info.epochs": list,
    "train_info.gradient_computations": int,
    "train_info.seconds_per_update": float | int | None,
    "train_info.train_seconds": float | int | None,
    "train_info.peak_memory_bytes": int,
    "train_info.peak_memory_of": str,
    "train_info.sharpness": dict | None,
    "meta_info.versions": dict,
    "meta_info.hardware.gpus": list,
    "meta_info.processes": int,
    "meta_info.data.train_samples": int,
    "meta_info.data.eval_samples": dict,
}


def require_settings(path: Path, record: dict[str, Any]) -> None:
    """
    Raises:
        `ValueError`: the record at `path` does not say of which run it is.
    """
    settings = record.get("meta_info", {})
    settings = settings.get("settings") if isinstance(settings, dict) else None
    if not isinstance(settings, dict) or not {"method", "rho", "run_info"} <= record.keys():
        raise ValueError(f"{path}: not the whole record of a run; delete the file, and the run will be repeated.")


def require_whole(path: Path, record: dict[str, Any], metrics: Iterable[str] = ()) -> None:
    """
    Args:
        metrics (`Iterable[str]`): What a finished run of this task has measured.

    Raises:
        `ValueError`: something is missing in the record at `path`, or is of another kind.
    """
    finished = record["status"] == FINISHED
    of_metrics = {f"train_info.metrics.{name}": float | int | None for name in metrics} if finished else {}
    for way, kind in (SHAPE | (SHAPE_OF_FINISHED if finished else SHAPE_OF_FAILED) | of_metrics).items():
        value: Any = record
        for step in way.split("."):
            if not isinstance(value, dict) or step not in value:
                raise ValueError(f"{path}: {way} is missing; delete the file, and the run will be repeated.")
            value = value[step]
        if not isinstance(value, kind):
            raise ValueError(f"{path}: {way} is {value!r}; delete the file, and the run will be repeated.")
    if finished and not all(isinstance(epoch, dict) for epoch in record["train_info"]["epochs"]):
        raise ValueError(f"{path}: train_info.epochs has no epochs; delete the file, and the run will be repeated.")


def last_error(record: dict[str, Any]) -> str:
    """The last line of a failed run's log that tells an error, without torchrun's own."""
    lines = [line.strip() for line in record["error"].splitlines()] or [""]
    errors = [line for line in lines if ERROR_LINE.match(line) and "ChildFailedError" not in line]
    return errors[-1] if errors else lines[-1]


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
