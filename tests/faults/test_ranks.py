"""Several ranks: one that does not answer ends the job, restarts go on, and trainers leave nothing behind."""

import os
import socket
import subprocess
import sys

import pytest

from tests.distributed.launch import REPOSITORY, start


TIMEOUT = 8

SILENT = """
import os, signal, sys, time
from transformers import TrainerCallback
from tests import harness

class Stop(TrainerCallback):
    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == 5 and args.process_index == 1:
            print("silent at", time.time(), flush=True)
            os.kill(os.getpid(), signal.SIGSTOP)

arguments = {"num_train_epochs": 50, "ddp_timeout": TIMEOUT}
trainer = harness.make_trainer(harness.Run(method=sys.argv[2], arguments=arguments), sys.argv[1], [Stop()])
assert trainer.args.world_size == 2
try:
    trainer.train()
except RuntimeError as error:
    print("ended at", time.time(), error, flush=True)
    raise
""".replace("TIMEOUT", str(TIMEOUT))

RESTARTED = """
import os, signal, sys
from transformers import TrainerCallback
from tests import harness

attempt = int(os.environ["TORCHELASTIC_RESTART_COUNT"])

class Kill(TrainerCallback):
    def on_train_begin(self, args, state, control, **kwargs):
        print(f"attempt {attempt} of rank {args.process_index} goes on from {state.global_step}", flush=True)

    def on_step_begin(self, args, state, control, **kwargs):
        if attempt == 0 and state.global_step == 6 and args.process_index == 1:
            os.kill(os.getpid(), signal.SIGKILL)

arguments = {"save_strategy": "steps", "save_steps": 4, "max_steps": 10, "ddp_timeout": 60}
run = harness.Run(method="sampa", examples=80, arguments=arguments)
trainer = harness.make_trainer(run, sys.argv[1], [Kill()])
trainer.train(resume_from_checkpoint="auto")
print(f"rank {trainer.args.process_index} ended at {trainer.state.global_step}", flush=True)
"""

MANY = """
import gc, os, sys, threading, weakref
import torch.distributed as dist
from tests import harness

def counts():
    gc.collect()
    groups = len(dist.distributed_c10d._world.pg_map)
    return len(os.listdir("/proc/self/fd")), threading.active_count(), groups

models, before = [], None
for number in range(30):
    run = harness.Run(method="sampa", arguments={"max_steps": 1, "logging_strategy": "no"})
    trainer = harness.make_trainer(run, sys.argv[1])
    assert trainer.args.world_size == 2
    trainer.train()
    models.append(weakref.ref(trainer.model))
    del trainer
    if number == 4:
        before = counts()
after = counts()
print("after 5:", *before, "after 30:", *after, "models:", sum(model() is not None for model in models), flush=True)
dist.destroy_process_group()
"""


def run_script(script, folder, *arguments, launcher=(), timeout=150):
    path = folder / "script.py"
    path.write_text(script)
    return start(2, [*launcher, str(path), str(folder), *arguments], timeout)


@pytest.mark.parametrize("method", ["sam", "sampa"])
def test_a_rank_that_does_not_answer_ends_the_job_within_the_timeout_by_name(method, tmp_path):
    """torchrun would wait for a process that was stopped, so the ranks are started by hand."""
    path = tmp_path / "script.py"
    path.write_text(SILENT)
    ranks = start_by_hand(path, tmp_path, method)
    try:
        output, _ = ranks[0].communicate(timeout=120)
    finally:
        for rank in ranks:
            rank.kill()
    other = ranks[1].communicate()[0]
    assert "silent at" in other, output[-2000:] + other[-2000:]
    silent = float(other.partition("silent at ")[2].split()[0])
    ended = float(output.partition("ended at ")[2].split()[0])
    assert "Rank 1 did not answer in update 6" in output
    assert f"ddp_timeout={TIMEOUT} seconds" in output
    if method == "sampa":
        assert "waiting for the gradient of its partner, rank 1" in output
    assert "Unable to cast" not in output.partition("ended at ")[2].splitlines()[0]
    assert ended - silent < TIMEOUT + 5


def start_by_hand(script, folder, *arguments):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    processes = []
    for rank in (0, 1):
        environment = os.environ | place | {"RANK": str(rank), "LOCAL_RANK": str(rank), "PYTHONPATH": str(REPOSITORY)}
        processes.append(
            subprocess.Popen(
                [sys.executable, str(script), str(folder), *arguments],
                env=environment,
                cwd=REPOSITORY,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    return processes


def test_a_job_that_is_started_again_goes_on_from_the_last_whole_checkpoint(tmp_path, monkeypatch):
    """As torchrun does after a rank was killed. What it does itself, up to the group of all ranks, is not tried."""
    path = tmp_path / "script.py"
    path.write_text(RESTARTED)
    printed = []
    for attempt in ("0", "1"):
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", attempt)
        ranks = start_by_hand(path, tmp_path)
        try:
            # Torchrun ends the other ranks when one is gone.
            killed = ranks[1].communicate(timeout=120)[0]
            if attempt == "0":
                ranks[0].kill()
            printed.append(ranks[0].communicate(timeout=120)[0] + killed)
        finally:
            for rank in ranks:
                rank.kill()
    for rank in (0, 1):
        assert f"attempt 0 of rank {rank} goes on from 0" in printed[0]
        assert f"attempt 1 of rank {rank} goes on from 4" in printed[1], printed[1][-3000:]
        assert f"rank {rank} ended at 10" in printed[1]


def test_thirty_trainers_leave_no_more_behind_than_five(tmp_path):
    """File descriptors, threads, process groups and models."""
    completed = run_script(MANY, tmp_path)
    assert completed.returncode == 0, completed.stdout[-3000:]
    lines = [line for line in completed.stdout.splitlines() if line.startswith("after 5:")]
    assert len(lines) == 2
    for line in lines:
        words = line.split()
        before, after, models = [int(w) for w in words[2:5]], [int(w) for w in words[7:10]], int(words[-1])
        assert after[2] == before[2] == 2
        assert after[0] <= before[0] + 1
        assert after[1] <= before[1] + 1
        assert models <= 1
