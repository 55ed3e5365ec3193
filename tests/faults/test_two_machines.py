"""Two network namespaces stand for two machines: a link that is down for a while is survived, a cut one is not."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.distributed.launch import REPOSITORY


NAMES = (f"hfsam-a{os.getpid()}", f"hfsam-b{os.getpid()}")
SCRIPT = """
import sys, time
from transformers import TrainerCallback
from tests import harness

class Slow(TrainerCallback):
    def on_step_begin(self, args, state, control, **kwargs):
        time.sleep(0.1)
        print(f"update {state.global_step + 1}", flush=True)

arguments = {"max_steps": 40, "ddp_timeout": int(sys.argv[2]), "logging_strategy": "no"}
trainer = harness.make_trainer(harness.Run(method="sampa", arguments=arguments), sys.argv[1], [Slow()])
assert trainer.args.world_size == 2
trainer.train()
print("trained to the end", harness.weights_of(trainer.model)["inner.weight"].sum().item(), flush=True)
"""


def ip(*words, check=True):
    return subprocess.run(["ip", *words], check=check, capture_output=True)


@pytest.fixture
def machines():
    try:
        permitted = all(ip("netns", "add", name, check=False).returncode == 0 for name in NAMES)
    except FileNotFoundError:
        permitted = False
    if not permitted:
        pytest.skip("needs the right to make network namespaces")
    try:
        ip("link", "add", "link0", "netns", NAMES[0], "type", "veth", "peer", "name", "link0", "netns", NAMES[1])
        for number, name in enumerate(NAMES, start=1):
            ip("-n", name, "addr", "add", f"10.77.0.{number}/24", "dev", "link0")
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "link", "set", "link0", "up")
        yield NAMES
    finally:
        for name in NAMES:
            ip("netns", "del", name, check=False)


def start_on(machines, folder: Path, timeout: int):
    (folder / "script.py").write_text(SCRIPT)
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "10.77.0.1", "MASTER_PORT": "29512", "OMP_NUM_THREADS": "1"}
    place |= {"GLOO_SOCKET_IFNAME": "link0", "PYTHONPATH": str(REPOSITORY), "LOCAL_RANK": "0"}
    return [
        subprocess.Popen(
            ["ip", "netns", "exec", name, sys.executable, str(folder / "script.py"), str(folder), str(timeout)],
            env=os.environ | place | {"RANK": str(rank)},
            cwd=REPOSITORY,
            stdout=open(folder / f"log-{rank}", "w"),
            stderr=subprocess.STDOUT,
        )
        for rank, name in enumerate(machines)
    ]


def wait_for(folder: Path, text: str, seconds: float):
    deadline = time.monotonic() + seconds
    while text not in (folder / "log-0").read_text():
        assert time.monotonic() < deadline, (folder / "log-0").read_text()[-2000:]
        time.sleep(0.1)


def end(processes, seconds: float):
    try:
        return [process.wait(seconds) for process in processes]
    finally:
        for process in processes:
            process.kill()


def test_a_link_that_is_down_for_ten_seconds_is_survived(machines, tmp_path):
    processes = start_on(machines, tmp_path, timeout=60)
    wait_for(tmp_path, "update 6\n", 120)
    ip("-n", machines[0], "link", "set", "link0", "down")
    time.sleep(10)
    ip("-n", machines[0], "link", "set", "link0", "up")
    assert end(processes, 120) == [0, 0]
    results = {(tmp_path / f"log-{rank}").read_text().partition("trained to the end")[2] for rank in (0, 1)}
    assert len(results) == 1


def test_a_link_that_is_cut_ends_both_sides_within_the_timeout(machines, tmp_path):
    processes = start_on(machines, tmp_path, timeout=8)
    wait_for(tmp_path, "update 6\n", 120)
    ip("-n", machines[0], "link", "set", "link0", "down")
    began = time.monotonic()
    assert all(code != 0 for code in end(processes, 60))
    took = time.monotonic() - began
    for rank in (0, 1):
        assert f"Rank {1 - rank} did not answer in update" in (tmp_path / f"log-{rank}").read_text()
    assert took < 8 + 12
