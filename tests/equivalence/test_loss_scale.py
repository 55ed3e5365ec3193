"""fp16: the loss scale cancels, and a gradient that is not finite skips the update. The scaler is torch's own;
the arithmetic stays float64, so that the numbers can be compared.
"""

from itertools import pairwise

import pytest

from tests import harness, reference


METHODS = {
    "sam": {},
    "sam per micro-batch": {
        "config": {"ascent_scope": "micro_batch"},
        "arguments": {"gradient_accumulation_steps": 3},
    },
    "sampa": {"method": "sampa"},
    "sampa with lambda 0": {"method": "sampa", "config": {"sampa_lambda": 0.0}},
    "fused sampa": {"method": "sampa", "arguments": {"optim": "adamw_torch_fused"}, "dtype": "float32"},
}


@pytest.mark.parametrize("name", METHODS)
def test_the_loss_scale_changes_nothing(name, tmp_path):
    """It grows every 4 updates, so h is made under one scale and used under another."""
    plain = harness.train(harness.Run(**METHODS[name]), tmp_path)
    scaled = harness.train(harness.Run(**METHODS[name], loss_scale=2.0**10), tmp_path)
    assert scaled["trace"].scales[-1] > 2.0**10
    tolerance = 1e-5 if METHODS[name].get("dtype") == "float32" else 1e-12
    assert harness.largest_difference(scaled["weights"], plain["weights"]) < tolerance
    for left, right in zip(scaled["log"], plain["log"], strict=True):
        for key in ("loss", "sam/perturbed_loss", "sam/sharpness", "sam/ascent_grad_norm", "grad_norm"):
            if key in right:
                assert left[key] == pytest.approx(right[key], abs=1e-5), key


# Passes of SAM: two for each update. Of SAMPa: one for h_0, then p_t and h_{t+1}.
@pytest.mark.parametrize(
    ("name", "explode_at", "skipped"),
    [
        ("sam", [4], 2),
        ("sam", [5], 2),
        ("sam", [0], 0),
        ("sampa", [0], 0),
        ("sampa", [5], 2),
        ("sampa", [6], 2),
        ("sampa with lambda 0", [5], 2),
        ("sampa with lambda 0", [6], 2),
        ("fused sampa", [0], 0),
        ("fused sampa", [5], 2),
        ("fused sampa", [6], 2),
    ],
)
def test_an_infinite_gradient_in_either_pass_skips_the_update(name, explode_at, skipped, tmp_path):
    run = harness.Run(**METHODS[name], loss_scale=2.0**10, model={"explode_at": explode_at})
    start = harness.weights_of(harness.make_trainer(run, tmp_path).model)
    result = harness.train(run, tmp_path)
    trace = result["trace"]
    weights = [start, *trace.weights]
    unchanged = [harness.same_bits(before, after) for before, after in pairwise(weights)]
    assert [update for update, same in enumerate(unchanged[:-1]) if same] == [skipped]
    scales = [2.0**10, *trace.scales]
    assert scales[skipped + 1] == scales[skipped] / 2
    assert all(value.isfinite().all() for value in result["weights"].values())


def test_after_an_infinite_lookahead_gradient_sampa_begins_again(tmp_path):
    """h_0 not finite: the first update is skipped, the rest begins with the second window."""
    run = harness.Run(method="sampa", loss_scale=2.0**10, model={"explode_at": [0]})
    start = harness.weights_of(harness.make_trainer(run, tmp_path).model)
    result = harness.train(run, tmp_path)
    windows = reference.windows_of(harness.make_dataset(44), 2, shards=1, accumulation=1, batch_size=4)
    expected = reference.train_sampa(
        start, windows[1:], 0.05, 0.1, after_the_last=windows[0], updates=len(windows), max_norm=1.0
    )
    assert harness.largest_difference(result["weights"], expected) < 1e-10
