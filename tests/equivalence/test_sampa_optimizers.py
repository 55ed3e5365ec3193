"""SAMPa around any optimizer: SGD as in the authors' script, and all others as far as their packages are here."""

import pytest
import torch

from tests import harness, reference
from tests.optimizers import TRAINED, maker_of


MOMENTUM = {
    "none": {"momentum": 0.0},
    "heavy ball": {"momentum": 0.9},
    "dampened": {"momentum": 0.8, "dampening": 0.5},
    "Nesterov": {"momentum": 0.9, "nesterov": True},
}


def reference_of(run, options, folder):
    trainer = harness.make_trainer(run, folder)
    reference.divide_as(trainer)
    steps, epochs = (run.arguments[name] for name in ("gradient_accumulation_steps", "num_train_epochs"))
    windows = reference.windows_of(harness.make_dataset(run.examples), epochs, 1, steps, batch_size=4)
    lam, start = run.config["sampa_lambda"], harness.weights_of(trainer.model)
    options = {"optimizer": reference.SGD, "after_the_last": windows[0]} | options
    return len(windows), reference.train_sampa(start, windows, run.config["rho"], lam, **options)


@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("lam", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("momentum", MOMENTUM)
def test_around_sgd_it_equals_the_authors_script_over_20_updates(momentum, lam, accumulation, tmp_path):
    """But for their first update, which has no perturbation."""
    run = harness.Run(
        method="sampa",
        config={"rho": 0.3, "sampa_lambda": lam},
        arguments={"gradient_accumulation_steps": accumulation, "num_train_epochs": 2 if accumulation == 1 else 5},
        optimizer=("torch.optim.SGD", MOMENTUM[momentum]),
    )
    result = harness.train(run, tmp_path)
    updates, expected = reference_of(run, MOMENTUM[momentum], tmp_path)
    assert result["state"]["global_step"] == updates >= 20
    assert harness.largest_difference(result["weights"], expected) < 1e-13
    # What is compared is not the formula as printed, nor the step without momentum and decay.
    for other in ({"lookahead": "gradient"}, {"momentum": 0.5}, {"decay": 0.0}):
        _, weights = reference_of(run, MOMENTUM[momentum] | other, tmp_path)
        assert harness.largest_difference(result["weights"], weights) > 1e-6


class OwnSGD(torch.optim.SGD):
    """A subclass is stepped itself and put back."""


class OwnAdamW(torch.optim.AdamW):
    pass


@pytest.mark.parametrize(
    ("kind", "subclass", "options"),
    [
        ("torch.optim.SGD", OwnSGD, {"momentum": 0.9, "nesterov": True}),
        ("torch.optim.AdamW", OwnAdamW, {"amsgrad": True}),
    ],
)
def test_both_ways_to_take_the_trial_step_give_the_same_bits(kind, subclass, options, tmp_path):
    paths = (kind, f"{subclass.__module__}.{subclass.__name__}")
    fast, general = (harness.train(harness.Run(method="sampa", optimizer=(path, options)), tmp_path) for path in paths)
    assert fast["trace"].hashes == general["trace"].hashes
    assert len(set(fast["trace"].hashes)) == fast["state"]["global_step"] == 22


def sampa_run(name, **options):
    """In float32, as torch loads some scalars of a state with the dtype of the weights."""
    maker = maker_of(name)
    arguments = {"save_strategy": "steps", "save_steps": 15, "train_sampling_strategy": "random"}
    values = {"method": "sampa", "dtype": "float32", "model": {"dropout": 0.3}}
    return harness.Run(**values | options, arguments=arguments, optimizer=(maker.path, maker.options))


@pytest.mark.parametrize("name", TRAINED)
def test_a_run_takes_the_optimizers_own_trial_step_and_resumes_bit_for_bit(name, tmp_path):
    whole = harness.train(sampa_run(name), tmp_path / "whole")
    resumed = harness.train(
        sampa_run(name, resume_from=str(tmp_path / "whole" / "checkpoint-15")), tmp_path / "resumed"
    )
    assert resumed["state"]["global_step"] == whole["state"]["global_step"] == 22
    assert resumed["trace"].hashes == whole["trace"].hashes[15:]
    printed = harness.train(sampa_run(name, config={"lookahead": "gradient"}), tmp_path / "printed")
    assert harness.largest_difference(whole["weights"], printed["weights"]) > 1e-6
