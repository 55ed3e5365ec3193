"""Trainings that take turns: a few updates of one, then a few of the next, each in the middle of `trainer.train()`.

What is compared has to meet the same machine, and a machine changes within minutes. So all trainings of a comparison
are started first, each stopped by a callback after an update, and the parent then lets one at a time go on. Those with
the same number of ranks live in the same processes; the others sleep on a socket while they wait.
"""

import json
import queue
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformers import TrainerCallback
from workload import ModelSize, build_trainer, require_world_size, size_from, worker_command


@dataclass(frozen=True)
class Training:
    """A method of `workload.METHODS` on a number of ranks, with the number of examples per rank and update."""

    method: str
    processes: int
    batch_size: int

    def __str__(self) -> str:
        return f"{self.method}, {self.processes} rank{'s' * (self.processes > 1)}, batch {self.batch_size}"


class Turns(TrainerCallback):
    """Holds a training before its first update and after each turn, and times the updates of a turn.

    An update lasts from the end of the one before to its own end, so fetching the batch belongs to it.
    """

    def __init__(self):
        self.orders: queue.Queue[int] = queue.Queue()
        self.reports: queue.Queue[list[float] | BaseException] = queue.Queue()
        self.left = 0

    def on_train_begin(self, args, state, control, **kwargs):
        self.reports.put([])
        self._wait(control)

    def on_step_end(self, args, state, control, **kwargs):
        now = time.perf_counter()
        self.seconds.append(now - self.start)
        self.start = now
        self.left -= 1
        if self.left == 0:
            self.reports.put(self.seconds)
            self._wait(control)

    def _wait(self, control):
        self.left = self.orders.get()
        control.should_training_stop = self.left == 0
        self.seconds, self.start = [], time.perf_counter()


class Held:
    """A training in a thread of its own, which advances only when it is told to."""

    def __init__(self, training: Training, size: ModelSize, updates: int, output_dir: str):
        self.turns = Turns()
        self.trainer = build_trainer(
            training.method, size, training.batch_size, updates, output_dir, callbacks=[self.turns]
        )
        self.thread = threading.Thread(target=self._train, daemon=True)

    def start(self):
        """Go on to where the first update would begin."""
        self.thread.start()
        self._report()

    def _train(self):
        try:
            self.trainer.train()
        except BaseException as error:
            self.turns.reports.put(error)
            raise

    def advance(self, updates: int) -> list[float]:
        self.turns.orders.put(updates)
        return self._report()

    def _report(self) -> list[float]:
        report = self.turns.reports.get()
        if isinstance(report, BaseException):
            raise report
        return report

    def stop(self):
        self.turns.orders.put(0)
        self.thread.join()


class Workers:
    """`processes` ranks that host several trainings. Use as a context, so that none is left behind.

    Args:
        trainings (`list[Training]`): All with the same number of processes.
        size ([`ModelSize`]): The model that each of them trains.
        updates (`int`): Most updates that any of them will be asked for.
    """

    def __init__(self, trainings: list[Training], size: ModelSize, updates: int):
        self.processes = trainings[0].processes
        self.trainings = trainings
        server = socket.create_server(("127.0.0.1", 0))
        server.settimeout(1)
        task = {
            "port": server.getsockname()[1],
            "trainings": [asdict(t) for t in trainings],
            "size": asdict(size),
            "updates": updates,
        }
        command, environment = worker_command(__file__, self.processes)
        self.process = subprocess.Popen([*command, json.dumps(task)], env=environment)
        self.channels = []
        while len(self.channels) < self.processes:
            try:
                connection, _ = server.accept()
            except TimeoutError:
                if self.process.poll() is not None:
                    raise RuntimeError(f"The workers on {self.processes} ranks did not start.") from None
                continue
            connection.settimeout(None)
            self.channels.append(connection.makefile("rw"))
        server.close()
        for channel in self.channels:
            self._receive(channel)

    def advance(self, training: Training, updates: int) -> tuple[list[float], list[int | None]]:
        """Let one training make some updates; all others sleep.

        Returns:
            `tuple`: Seconds of each update (of its slowest rank), and the bytes that each rank has sent meanwhile.
        """
        order = {"training": self.trainings.index(training), "updates": updates}
        for channel in self.channels:
            _send(channel, order)
        reports = [self._receive(channel) for channel in self.channels]
        seconds = [max(of_ranks) for of_ranks in zip(*(r["seconds"] for r in reports), strict=True)]
        return seconds, [r["bytes_sent"] for r in reports]

    def _receive(self, channel) -> dict:
        line = channel.readline()
        report = json.loads(line) if line else {"error": "It ended without a message."}
        if "error" in report:
            raise RuntimeError(f"A worker on {self.processes} ranks failed:\n{report['error']}")
        return report

    def __enter__(self):
        return self

    def __exit__(self, error_type, error, trace):
        if error is None:
            for channel in self.channels:
                _send(channel, {"updates": 0})
            self.process.wait(timeout=120)
        elif self.process.poll() is None:
            self.process.terminate()
            self.process.wait(timeout=60)


def _send(channel, message: dict):
    channel.write(json.dumps(message) + "\n")
    channel.flush()


def bytes_written() -> int | None:
    """Bytes this process has written so far, to sockets as to files; `None` where the system does not say."""
    counters = Path("/proc/self/io")
    if not counters.exists():
        return None
    return next(int(line.split()[1]) for line in counters.read_text().splitlines() if line.startswith("wchar:"))


def work(task: dict):
    """One rank: hold the trainings and do what the parent says."""
    trainings = [Training(**t) for t in task["trainings"]]
    require_world_size(trainings[0].processes)
    channel = socket.create_connection(("127.0.0.1", task["port"])).makefile("rw")
    try:
        with tempfile.TemporaryDirectory() as output_dir:
            # TrainingArguments reset the state that all Accelerators share, so all are built before any is used; and
            # one after the other starts, since the ranks must come to their collectives in the same order.
            held = [Held(t, size_from(task["size"]), task["updates"], output_dir) for t in trainings]
            for one in held:
                one.start()
            _send(channel, {"ready": True})
            while (order := json.loads(channel.readline()))["updates"] > 0:
                before = bytes_written()
                seconds = held[order["training"]].advance(order["updates"])
                sent = None if before is None else bytes_written() - before
                _send(channel, {"seconds": seconds, "bytes_sent": sent})
            for one in held:
                one.stop()
    except BaseException:
        _send(channel, {"error": traceback.format_exc()})
        raise
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    work(json.loads(sys.argv[1]))
