"""Where the record of a run lies, and how it gets there whole or not at all."""

import fcntl
import json
import math
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


FINISHED, FAILED = "finished", "failed"
SCRATCH = ".scratch"

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
        return _read(path) if path.is_file() else None

    def read_all(self) -> list[dict[str, Any]]:
        """
        All records, in the order of their file names.

        Raises:
            `ValueError`: a file is no record.
        """
        paths = (path for path in self.folder.rglob("*.json") if SCRATCH not in path.relative_to(self.folder).parts)
        return [_read(path) for path in sorted(paths)]

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
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not a JSON file ({error}); delete it, and the run will be repeated.") from error
    if not isinstance(record, dict) or record.get("status") not in (FINISHED, FAILED):
        raise ValueError(f"{path}: not the record of a run; move it out of the folder.")
    return record


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
