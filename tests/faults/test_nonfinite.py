"""A loss that is NaN or infinite spreads as with the stock Trainer, with one warning; or its update is left out."""

import pytest
import torch

from hf_sam import SAMConfig
from tests import harness
from tests.distributed.launch import launch


METHODS = {
    "sam": {},
    "sam, micro-batches": {"config": {"ascent_scope": "micro_batch"}},
    "sampa": {"method": "sampa"},
    "sampa, lambda 0": {"method": "sampa", "config": {"sampa_lambda": 0.0}},
}
# The pass that explodes, counted from 0. SAM has two in an update; SAMPa h_0, then two.
PASSES = {"sam": [(5, "perturbed", 3), (6, "unperturbed", 4)], "sampa": [(5, "perturbed", 3), (6, "unperturbed", 3)]}


def make_run(name, explode_at, skip=False, **options):
    values = METHODS[name] | options
    config = values.pop("config", {}) | {"skip_nonfinite_updates": skip}
    model = {"explode_at": [explode_at]} | values.pop("model", {})
    return harness.Run(config=config, model=model, examples=40, **values)


def warnings_of(caplog):
    return [record.getMessage() for record in caplog.records if record.name == "hf_sam.nonfinite"]


@pytest.mark.parametrize("filtered", [True, False])
@pytest.mark.parametrize("name", ["sam", "sampa"])
def test_one_warning_names_the_pass_the_update_and_the_rank(name, filtered, tmp_path, caplog):
    for explode_at, which, update in PASSES[name]:
        caplog.clear()
        arguments = {"logging_nan_inf_filter": filtered}
        result = harness.train(make_run(name, explode_at, arguments=arguments), tmp_path)
        [warning] = warnings_of(caplog)
        assert f"The loss of the {which} pass of update {update} on rank 0 is not finite" in warning
        assert all(value.isnan().all() for value in result["weights"].values())


@pytest.mark.parametrize("name", METHODS)
def test_an_update_that_is_not_finite_is_left_out(name, tmp_path, caplog):
    explode_at, _, _ = PASSES[name.split(",")[0]][0]
    trace = harness.train(make_run(name, explode_at, skip=True, model={"batch_norm": True}), tmp_path)["trace"]
    # Weights and running statistics after each update, the first of which is number 1.
    same = [harness.same_bits(a, b) for a, b in zip(trace.weights[:-1], trace.weights[1:], strict=True)]
    assert [number for number, skipped in enumerate(same, start=2) if skipped] == [3]
    assert all(value.isfinite().all() for value in trace.weights[-1].values())


def test_after_an_update_that_was_left_out_sampa_begins_anew(tmp_path):
    """Both gradients of update 3 are finite again after a lookahead gradient that was not."""
    trace = harness.train(make_run("sampa", 6, skip=True), tmp_path)["trace"]
    same = [harness.same_bits(a, b) for a, b in zip(trace.weights[:-1], trace.weights[1:], strict=True)]
    assert [number for number, skipped in enumerate(same, start=2) if skipped] == [3]
    assert all(value.isfinite().all() for value in trace.weights[-1].values())


@pytest.mark.parametrize("name", ["sam", "sampa"])
def test_where_all_is_finite_the_option_changes_nothing(name, tmp_path):
    skipping, without = (harness.train(make_run(name, 10**6, skip=skip), tmp_path) for skip in (True, False))
    assert harness.same_bits(skipping["weights"], without["weights"])


def test_on_two_ranks_all_leave_it_out(tmp_path):
    runs = {
        f"{name}-{rank}": make_run(
            name, 4, skip=True, model={"explode_on_rank": rank}, arguments={"num_train_epochs": 3}
        )
        for name in ("sam", "sampa")
        for rank in (0, 1)
    }
    for name, results in launch(2, runs, tmp_path).items():
        first, second = (result["trace"] for result in results)
        assert first.hashes == second.hashes
        same = [harness.same_bits(a, b) for a, b in zip(first.weights[:-1], first.weights[1:], strict=True)]
        assert sum(same) == 1, name
        assert all(torch.isfinite(value).all() for value in first.weights[-1].values())


def test_the_stock_trainer_has_no_such_option():
    with pytest.raises(ValueError, match=r"skip_nonfinite_updates=True cannot be combined with method='none'"):
        SAMConfig(method="none", skip_nonfinite_updates=True)
    with pytest.raises(ValueError, match=r"skip_nonfinite_updates='yes': must be True or False"):
        SAMConfig(skip_nonfinite_updates="yes")
