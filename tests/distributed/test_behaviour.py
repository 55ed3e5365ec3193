"""What only several ranks can get wrong: overflow on one of them, BatchNorm, logged values, accounting, resuming."""

import pytest

from tests import harness
from tests.distributed.launch import launch


SCALED = {"loss_scale": 2.0**10}
# Passes on a rank: SAM counts two for each update, SAMPa h_0 and then one, so pass 3 is update 1 or 2.
OVERFLOWS = {
    "sam-global": ({"config": {"ascent_scope": "global"}}, 1),
    "sam-rank": ({"config": {"ascent_scope": "rank"}}, 1),
    "sampa": ({"method": "sampa"}, 2),
    "sampa-0": ({"method": "sampa", "config": {"sampa_lambda": 0.0}}, 2),
    "sampa-1": ({"method": "sampa", "config": {"sampa_lambda": 1.0}}, 2),
    "sam-micro_batch": ({"config": {"ascent_scope": "micro_batch"}}, 1),
}
RUNS = {
    f"overflow-{name}-on-{rank}": harness.Run(
        **options, **SCALED, examples=80, model={"explode_at": [3], "explode_on_rank": rank}
    )
    for name, (options, _) in OVERFLOWS.items()
    for rank in (0, 1)
}
# What equals the stock Trainer on two ranks: nothing to do, with a shorter last window.
REDUCED = {"arguments": {"gradient_accumulation_steps": 3, "num_train_epochs": 5}, "model": {"dropout": 0.3}}
RUNS["stock"] = harness.Run(trainer="stock", examples=80, **REDUCED)
RUNS["stock-bf16"] = harness.Run(trainer="stock", examples=80, dtype="float32", arguments={"bf16": True})
RUNS["none"] = harness.Run(method="none", examples=80, **REDUCED)
RUNS |= {
    f"idle-{scope}": harness.Run(config={"rho": 0.0, "ascent_scope": scope}, examples=80, **REDUCED)
    for scope in ("rank", "global", "micro_batch")
}
RUNS |= {
    f"{name}-autocast": harness.Run(method=name, examples=80, dtype="float32", arguments={"bf16": True})
    for name in ("sam", "sampa")
}
RUNS["idle-autocast"] = harness.Run(config={"rho": 0.0}, examples=80, dtype="float32", arguments={"bf16": True})
RUNS["sam-bf16"] = harness.Run(examples=80, dtype="bfloat16")
RUNS |= {
    f"{name}-norm": harness.Run(method=name, examples=80, model={"batch_norm": True, "dropout": 0.2})
    for name in ("sam", "sampa")
}
RUNS |= {
    "sampa-dropout": harness.Run(method="sampa", examples=80, model={"dropout": 0.4}),
    "sampa-bf16": harness.Run(method="sampa", examples=80, dtype="bfloat16"),
    "sampa-unused": harness.Run(method="sampa", examples=80, model={"unused": True}),
    "sampa-frozen": harness.Run(method="sampa", examples=80, model={"frozen": True}),
    "sampa-shuffled": harness.Run(method="sampa", examples=80, arguments={"train_sampling_strategy": "random"}),
    "sampa-evaluated": harness.Run(
        method="sampa",
        examples=80,
        arguments={"train_sampling_strategy": "random", "eval_strategy": "steps", "eval_steps": 3},
    ),
    "sampa-similar": harness.Run(method="sampa", examples=80, similarity_every=5),
    "sampa-stream": harness.Run(
        method="sampa", examples=80, iterable=True, arguments={"max_steps": 30, "gradient_accumulation_steps": 3}
    ),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return launch(2, RUNS, tmp_path_factory.mktemp("behaviour"))


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("name", OVERFLOWS)
def test_an_infinite_gradient_on_one_rank_skips_the_update_on_all(name, rank, trained):
    traces = [result["trace"] for result in trained[f"overflow-{name}-on-{rank}"]]
    assert traces[0].hashes == traces[1].hashes
    update = OVERFLOWS[name][1]
    for trace in traces:
        same = [
            harness.same_bits(before, after)
            for before, after in zip(trace.weights[:-2], trace.weights[1:-1], strict=True)
        ]
        assert [position + 1 for position, skipped in enumerate(same) if skipped] == [update]
        assert trace.scales[update] == trace.scales[update - 1] / 2


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in RUNS
        if name.startswith("sampa") and name not in ("sampa-bf16", "sampa-autocast", "sampa-evaluated")
    ],
)
def test_sampa_on_two_ranks_equals_sampa_on_one_process(name, trained, tmp_path):
    """Dropout masks, running statistics and logged values included."""
    alone = harness.train(RUNS[name], tmp_path)
    for result in trained[name]:
        assert harness.largest_difference(result["weights"], alone["weights"]) < 1e-10
    logs = [[entry for entry in log if "loss" in entry] for log in (alone["log"], trained[name][0]["log"])]
    assert len(logs[0]) == len(logs[1]) > 0
    for left, right in zip(*logs, strict=True):
        assert left.keys() == right.keys()
        for key in left:
            assert left[key] == pytest.approx(right[key], abs=2e-6), key
    assert trained[name][0]["state"] == alone["state"]


@pytest.mark.parametrize("name", ["none", "idle-rank", "idle-global", "idle-micro_batch"])
def test_with_nothing_to_do_two_ranks_equal_the_stock_trainer(name, trained):
    for ours, stock in zip(trained[name], trained["stock"], strict=True):
        assert ours["trace"].hashes == stock["trace"].hashes
        assert len(stock["trace"].hashes) == 20


def test_bf16_autocast_reduces_to_stock_too_and_a_radius_makes_a_difference(trained):
    stock = trained["stock-bf16"][0]["weights"]
    assert harness.same_bits(trained["idle-autocast"][0]["weights"], stock)
    assert harness.largest_difference(trained["sam-autocast"][0]["weights"], stock) > 1e-3


def test_evaluation_in_between_leaves_the_two_ranks_of_a_pair_at_the_same_data(trained):
    """Without dropout evaluation must not change a thing."""
    without, with_evaluation = trained["sampa-shuffled"], trained["sampa-evaluated"]
    assert len([entry for entry in with_evaluation[0]["log"] if "eval_loss" in entry]) > 5
    assert harness.same_bits(without[0]["weights"], with_evaluation[0]["weights"])


@pytest.mark.parametrize("name", [name for name in RUNS if not name.startswith("overflow")])
def test_both_ranks_hold_the_same_bits_after_every_update(name, trained):
    """bfloat16 and running statistics included."""
    first, second = trained[name]
    assert first["trace"].hashes == second["trace"].hashes
    assert len(first["trace"].hashes) == first["state"]["global_step"] > 10
    assert [entry.get("loss") for entry in first["log"]] == [entry.get("loss") for entry in second["log"]]
