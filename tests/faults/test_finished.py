"""A run that was killed after its last update, but before it had ended, has nothing left to train."""

import pytest

from tests import harness


@pytest.mark.parametrize("method", ["sam", "sampa"])
def test_resuming_after_the_last_update_trains_no_further(method, tmp_path):
    arguments = {"save_strategy": "steps", "save_steps": 2, "max_steps": 6}
    run = harness.Run(method=method, arguments=arguments, model={"dropout": 0.2})
    whole = harness.train(run, tmp_path)
    again = harness.train(
        harness.Run(method=method, arguments=arguments, model={"dropout": 0.2}, resume_from="auto"), tmp_path
    )
    assert again["state"]["global_step"] == 6
    assert harness.same_bits(again["weights"], whole["weights"])
    assert harness.same_bits(again["optimizer"], whole["optimizer"])
