"""A rank that fails in the middle of training ends the job, with its own error and soon."""

import time

import pytest

from tests.distributed.launch import start


SCRIPT = """
import sys
from tests import harness

folder, place, failing = sys.argv[1], sys.argv[2], int(sys.argv[3])
trainer = harness.make_trainer(harness.Run(method="sampa", arguments={"num_train_epochs": 50}), folder)
assert trainer.args.world_size == 2
backward_passes = 0

def fail_in_the_middle(gradient):
    global backward_passes
    backward_passes += 1
    if trainer.state.global_step == 5:
        raise RuntimeError(f"rank {trainer.args.process_index} has failed")

if trainer.args.process_index == failing:
    if place == "backward":
        trainer.model.outer.weight.register_hook(fail_in_the_middle)
    else:
        trainer.model.register_forward_pre_hook(lambda *_: fail_in_the_middle(None))
trainer.train()
print("trained to the end")
"""


@pytest.mark.parametrize(("place", "rank"), [("backward", 1), ("forward", 0)])
def test_the_job_ends_with_the_error(place, rank, tmp_path):
    script = tmp_path / "failing.py"
    script.write_text(SCRIPT)
    began = time.monotonic()
    completed = start(2, [str(script), str(tmp_path), place, str(rank)], timeout=280)
    assert completed.returncode != 0
    assert f"RuntimeError: rank {rank} has failed" in completed.stdout
    assert "trained to the end" not in completed.stdout
    # Far below the half hour after which a process group gives up waiting for its ranks.
    assert time.monotonic() - began < 240
