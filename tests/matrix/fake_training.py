"""Stands in for a training run: takes a moment, keeps a journal of what it did, leaves a result.

fake_training.py RESULT_FOLDER JOURNAL NAME SECONDS [fail]
"""

import json
import os
import sys
import time
from pathlib import Path

from hf_sam_recipes.matrix.lifeline import end_with_runner


def note(journal: Path, *words: object) -> None:
    line = " ".join(map(str, words)) + "\n"
    descriptor = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, line.encode())
    os.close(descriptor)


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def main(folder: str, journal: str, name: str, seconds: str, behaviour: str = "") -> None:
    end_with_runner()
    journal = Path(journal)
    running = journal.with_name(f"{journal.name}.{name.replace('/', '-')}")
    if running.exists() and is_alive(int(running.read_text())):
        note(journal, "overlap", name)
    running.write_text(str(os.getpid()))
    note(journal, "start", name, os.getpid(), os.getppid())
    time.sleep(float(seconds))
    if behaviour == "fail" and not journal.with_name("mended").exists():
        raise RuntimeError(f"cannot read {journal.resolve()}")
    note(journal, "end", name, os.getpid())
    result = {
        "train_info": {"metrics": {"accuracy": float("nan"), "pid": os.getpid()}, "filling": list(range(2000))},
        "meta_info": {"hardware": "none"},
    }
    (Path(folder) / "result.json").write_text(json.dumps(result))
    running.unlink()


if __name__ == "__main__":
    main(*sys.argv[1:])
