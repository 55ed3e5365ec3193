"""Kills: does a run that is killed at any moment, and started again, end with the bits of one that was left alone?

    python benchmarks/faults.py                      # 100 kills, aimed at saving and at training, on 1 and 2 ranks
    python benchmarks/faults.py --kills 12 --seconds 60

A run of SAM or SAMPa is started with `resume_from_checkpoint="auto"` and killed (SIGKILL) several times, each time at
another moment, until it comes to its end. What it ends with is compared with an uninterrupted run: weights, optimizer
and random streams of every rank. Then training is interrupted as by Ctrl-C at random moments, for a while.
"""

import argparse
import contextlib
import itertools
import multiprocessing
import multiprocessing.connection
import os
import random
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fault_interrupts import interrupt_for
from fault_worker import MOMENTS, SAVE_STEPS, SAVING, UPDATES, Aim, train
from workload import REPOSITORY, TINY, format_table, provenance, write_json


RUNS = [(method, ranks) for ranks in (1, 2) for method in ("sam", "sampa")]
KILLS_PER_RUN = 5
DELETING, ANY = "older one half deleted", "any time"
# Much longer than a start takes; a start that takes longer counts as one that hangs.
LONGEST_START = 60.0


@dataclass
class Place:
    """`went_on`: of the starts that were killed there, those that had themselves gone on from a checkpoint."""

    kills: int = 0
    went_on: int = 0


@dataclass(frozen=True)
class Start:
    """What one start of a run came to. `digests`: of all ranks, if it came to its end."""

    began_at: int | None
    digests: tuple[str, ...] | None
    failure: str | None
    seconds: float


def start(method: str, ranks: int, folder: Path, aim: Aim | None, kill_after: float | None) -> Start:
    """Start all ranks and wait until they have ended, or until one has been killed; then the others are killed too."""
    with tempfile.TemporaryDirectory() as temporary:
        notes = Path(temporary)
        processes = _fork(method, ranks, folder, notes, aim)
        began = time.monotonic()
        if kill_after is not None:
            time.sleep(kill_after)
            random.choice(processes).kill()
        while any(process.is_alive() for process in processes) and time.monotonic() - began < LONGEST_START:
            multiprocessing.connection.wait([process.sentinel for process in processes if process.is_alive()], 1.0)
            if any(process.exitcode == -signal.SIGKILL for process in processes):
                # As when a machine goes down: not all processes at the same instant.
                time.sleep(random.uniform(0, 0.05))
                break
        seconds = time.monotonic() - began
        killed = any(process.exitcode == -signal.SIGKILL for process in processes)
        for process in processes:
            process.kill()
            process.join()
        ended = [_read(notes, "ended", rank) for rank in range(ranks)]
        digests = None if None in ended else tuple(ended)
        began_at = _read(notes, "begun", 0)
        failure = None
        if not killed and digests is None:
            logs = "".join(_read(notes, "log", rank) or "" for rank in range(ranks))
            what = "hangs" if seconds >= LONGEST_START else "failed"
            failure = f"{method} on {ranks} ranks, killed at {aim or kill_after}: {what}\n{logs[-3000:]}"
        return Start(None if began_at is None else int(began_at), digests, failure, seconds)


def _fork(method: str, ranks: int, folder: Path, notes: Path, aim: Aim | None) -> list:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    fork = multiprocessing.get_context("fork")
    processes = []
    for rank in range(ranks):
        place = {
            "RANK": rank,
            "LOCAL_RANK": rank,
            "WORLD_SIZE": ranks,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
        }
        names = {name: str(value) for name, value in place.items()} if ranks > 1 else {}
        os.environ |= names
        processes.append(fork.Process(target=train, args=(method, folder, notes, aim)))
        processes[-1].start()
        for name in names:
            del os.environ[name]
    return processes


def in_a_fork(function: Callable, *arguments: Any) -> Any:
    """What `function` returns in a process of its own, so that this one stays fit to be forked."""
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe(duplex=False)
    process = fork.Process(target=lambda: theirs.send(function(*arguments)))
    process.start()
    theirs.close()
    try:
        return ours.recv()
    finally:
        process.join()


def _read(notes: Path, name: str, rank: int) -> str | None:
    with contextlib.suppress(FileNotFoundError):
        return (notes / f"{name}-{rank}").read_text() or None


def aims() -> Iterator[str]:
    """Moments without an end: three of four are of saving, and each is as frequent as the others of its kind."""
    saving, others = itertools.cycle(SAVING), itertools.cycle([*(name for name in MOMENTS if name not in SAVING), ANY])
    while True:
        yield from (next(saving), next(saving), next(saving), next(others))


def aim_at(moment: str, ranks: int, generator: random.Random) -> Aim:
    # Only rank 0 comes to most moments of saving.
    everywhere = moment not in SAVING or "random state" in moment
    rank = generator.randrange(ranks) if everywhere else 0
    if moment not in SAVING:
        return Aim(moment, rank, generator.randint(2 * SAVE_STEPS, 3 * SAVE_STEPS))
    # Every start gets beyond its first checkpoint, so that the run comes to its end.
    return Aim(moment, rank, 1 if moment == DELETING else 2)


def kill_one_run(
    method: str, ranks: int, moments: list[str], whole: Start, generator: random.Random, places: dict[str, Place]
) -> bool:
    """Whether a run that is killed at each of `moments`, as far as it gets, ends with the bits of `whole`."""
    with tempfile.TemporaryDirectory() as folder:
        for moment in [*moments, None]:
            random_time = generator.uniform(0.1, 0.9) * whole.seconds if moment == ANY else None
            aim = None if moment in (None, ANY) else aim_at(moment, ranks, generator)
            result = start(method, ranks, Path(folder), aim, random_time)
            if result.failure:
                print(result.failure)
                return False
            if result.digests is not None:
                return result.digests == whole.digests
            places[moment].kills += 1
            places[moment].went_on += bool(result.began_at)
    raise RuntimeError("A start without a kill has not come to its end.")


def kill_runs(kills: int, deadline: float, generator: random.Random) -> tuple[dict, dict]:
    """Run after run, until there were enough kills or the time is up."""
    places = {name: Place() for name in [*MOMENTS, ANY]}
    runs = {run: {"kills": 0, "runs": 0, "equal": 0} for run in RUNS}
    wholes, wanted, done = {}, aims(), 0
    for method, ranks in itertools.cycle(RUNS):
        if done >= kills or (done and time.monotonic() > deadline):
            return places, runs
        if (method, ranks) not in wholes:
            with tempfile.TemporaryDirectory() as folder:
                wholes[method, ranks] = start(method, ranks, Path(folder), None, None)
            if wholes[method, ranks].digests is None:
                raise RuntimeError(wholes[method, ranks].failure)
        moments = list(itertools.islice(wanted, min(KILLS_PER_RUN, kills - done)))
        equal = kill_one_run(method, ranks, moments, wholes[method, ranks], generator, places)
        row, before = runs[method, ranks], done
        done = sum(place.kills for place in places.values())
        row["kills"] += done - before
        row["runs"] += 1
        row["equal"] += equal
        print(f"{method} on {ranks}: {done - before} kills, {'equal' if equal else 'NOT EQUAL'}", flush=True)
    return places, runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=900.0, help="no further run is started after these")
    parser.add_argument("--interrupt_seconds", type=float, default=60.0, help="how long to press Ctrl-C")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=REPOSITORY / "benchmarks" / "results" / "faults.json")
    options = parser.parse_args()
    began, generator = time.monotonic(), random.Random(options.seed)
    places, runs = kill_runs(options.kills, began + options.seconds, generator)
    interrupts = in_a_fork(interrupt_for, options.interrupt_seconds, options.seed)
    content = {
        "updates": UPDATES,
        "killed_at": {name: asdict(place) for name, place in places.items()},
        "runs": [{"method": method, "ranks": ranks, **row} for (method, ranks), row in runs.items()],
        "interrupts": interrupts,
        "seconds": round(time.monotonic() - began, 1),
        **provenance(TINY),
    }
    write_json(options.output, content)
    print(
        format_table(
            ["killed at", "kills", "had gone on from a checkpoint"],
            [[name, str(place.kills), str(place.went_on)] for name, place in places.items()],
        )
    )
    print(
        format_table(
            ["run", "kills", "runs", "equal to the whole run"],
            [[f"{method} on {ranks}", *map(str, row.values())] for (method, ranks), row in runs.items()],
        )
    )
    rows = [[method, *map(str, counts.values())] for method, counts in interrupts.items()]
    print(format_table(["interrupted", *next(iter(interrupts.values()))], rows))
    harmless = ("interrupts", "just after it")
    left = [counts[name] for counts in interrupts.values() for name in counts if name not in harmless]
    if any(left) or any(row["equal"] < row["runs"] for row in runs.values()):
        raise SystemExit("Not everything held.")


if __name__ == "__main__":
    main()
