"""Does a small matrix with the real runner and fake training runs, in a process that a test can kill.

drive.py RECORDS JOURNAL SECONDS JOBS [retry]
"""

import signal
import sys
from pathlib import Path

from hf_sam_recipes.matrix.records import RecordStore
from hf_sam_recipes.matrix.run import RESULT_FOLDER, Run
from hf_sam_recipes.matrix.runner import MatrixRunner


TASKS, METHODS, SEEDS = ("a", "b", "c"), ("x", "y", "fail"), (1, 2, 3)


def matrix(journal: str, seconds: str, methods: tuple[str, ...] = METHODS) -> list[Run]:
    fake = str(Path(__file__).with_name("fake_training.py"))
    runs = []
    for task in TASKS:
        for method in methods:
            for seed in SEEDS:
                name = f"{task}/{method}/seed-{seed}"
                command = (sys.executable, fake, RESULT_FOLDER, journal, name, seconds, method)
                runs.append(Run(name, task, method, seed, command, shown_command=f"train {name}"))
    return runs


if __name__ == "__main__":
    # A shell starts its background jobs with interrupts ignored, and the tests may be one.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    folder, journal, seconds, jobs, *retry = sys.argv[1:]
    runner = MatrixRunner(matrix(journal, seconds), RecordStore(Path(folder)), int(jobs), retry_failed=bool(retry))
    counts = runner.run()
    print(counts["finished"], counts["failed"])
