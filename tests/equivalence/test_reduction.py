"""With nothing to do, training is the stock Trainer's, bit for bit: weights, optimizer, log and random numbers."""

from functools import cache

import pytest
import torch

from tests import harness


SETTINGS = {
    "plain": {},
    "a shorter last window": {"arguments": {"gradient_accumulation_steps": 3, "num_train_epochs": 5}},
    "bf16": {"arguments": {"bf16": True}, "dtype": "float32"},
    "fused": {"arguments": {"optim": "adamw_torch_fused"}, "dtype": "float32"},
    "no clipping": {"arguments": {"max_grad_norm": 0.0}},
    "shuffled": {"arguments": {"train_sampling_strategy": "random"}},
    "BatchNorm": {"model": {"batch_norm": True, "dropout": 0.3}},
    "sgd": {"arguments": {"optim": "sgd"}},
    "adafactor": {"arguments": {"optim": "adafactor"}},
    "stream without a length": {"iterable": True, "arguments": {"max_steps": 20, "num_train_epochs": 1}},
    # Without dropout: the masks of a window that two passes share are drawn after the second pass has begun.
    "stream cut in the middle of a window": {
        "iterable": True,
        "model": {},
        "arguments": {"max_steps": 8, "gradient_accumulation_steps": 3},
    },
}


def make_run(setting: str, **options) -> harness.Run:
    return harness.Run(**{"model": {"dropout": 0.3}} | SETTINGS[setting] | options)


@pytest.fixture(scope="module")
def train_stock(tmp_path_factory):
    """`train_stock(setting)` trains with the stock Trainer, once."""
    return cache(lambda setting: harness.train(make_run(setting, trainer="stock"), tmp_path_factory.mktemp("stock")))


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize(
    "options",
    [
        {"method": "none"},
        {"config": {"rho": 0.0}},
        {"config": {"rho": 0.0, "ascent_scope": "micro_batch"}},
        {"config": {"rho": 0.0, "same_dropout_mask": False}},
    ],
    ids=["none", "rho=0", "rho=0 per micro-batch", "rho=0 with other masks"],
)
def test_equals_the_stock_trainer(setting, options, train_stock, tmp_path):
    stock = train_stock(setting)
    ours = harness.train(make_run(setting, **options), tmp_path)
    assert harness.same_bits(ours["weights"], stock["weights"])
    assert harness.same_bits(ours["optimizer"], stock["optimizer"])
    assert torch.equal(ours["rng"], stock["rng"])
    assert ours["state"]["global_step"] == stock["state"]["global_step"] >= 8


@pytest.mark.parametrize("setting", ["plain", "bf16", "BatchNorm"])
def test_sam_with_a_radius_does_not_equal_the_stock_trainer(setting, train_stock, tmp_path):
    stock = train_stock(setting)
    ours = harness.train(make_run(setting, config={"rho": 0.3}), tmp_path)
    assert harness.largest_difference(ours["weights"], stock["weights"]) > 1e-3


@pytest.mark.parametrize("same", [True, False])
def test_the_logged_loss_with_rho_0_is_that_of_the_stock_trainer(same, train_stock, tmp_path):
    """The ascent pass draws the stock's masks, or others: then its loss differs and the weights do not."""
    stock = train_stock("plain")["log"]
    ours = harness.train(make_run("plain", config={"rho": 0.0, "same_dropout_mask": same}), tmp_path)["log"]
    losses = [[entry["loss"] for entry in log if "loss" in entry] for log in (ours, stock)]
    assert (losses[0] == losses[1]) is same


@pytest.mark.parametrize("method", ["sam", "sampa"])
def test_random_streams_end_where_a_stock_run_leaves_them(method, tmp_path):
    run = make_run("plain", arguments={"train_sampling_strategy": "sequential"})
    model_draws = harness.train(run, tmp_path)["rng"]
    run.trainer = "stock"
    assert torch.equal(model_draws, harness.train(run, tmp_path)["rng"])
