"""Adapters, frozen and tied parameters, and those that a pass does not use."""

import pytest
import torch
from transformers.trainer_utils import get_last_checkpoint

from tests import harness
from tests.host import parameters, setups
from tests.host.cases import CASES, SKIPPING_ARGUMENTS


RHO = 0.1


def norm(displacement):
    return sum(distance**2 for distance in displacement.values()) ** 0.5


def watch(model, folder, name, rows=None, **options):
    common = {"data_collator": setups.collate_for_classification} | options
    return setups.make_trainer(
        model, rows or setups.sentences(24), folder, setups.CONFIGS[name], base=parameters.Watching, **common
    )


def perturbed_passes(trainer, name):
    """SAM: the second pass of each update. SAMPa: the first, and one for h_0 before all of them."""
    seen = trainer.displacements
    return seen[1::2] if name == "sam" else seen[1:][::2]


def check_displacements(trainer, name, trained):
    passes = perturbed_passes(trainer, name)
    assert len(passes) == trainer.state.global_step == 6
    for displacement in passes:
        assert norm(displacement) == pytest.approx(RHO, rel=1e-9)
        assert set(displacement) <= trained
    # In the last update nothing is left out any more (at first an adapter's A has no gradient).
    assert set(passes[-1]) == trained


@pytest.mark.parametrize("name", ["sam", "sampa"])
def test_only_adapters_are_perturbed_and_changed(name, tmp_path):
    model = parameters.with_adapters()
    before = harness.weights_of(model)
    trained = {key for key, value in model.named_parameters() if value.requires_grad}
    assert 0 < len(trained) < len(before) / 3
    trainer = watch(model, tmp_path, name)
    trainer.train()
    check_displacements(trainer, name, trained)
    after = harness.weights_of(model)
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed == trained


@pytest.mark.parametrize("name", ["sam", "sampa"])
def test_adapters_resume_bit_for_bit(name, tmp_path):
    def train(folder, **resume):
        arguments = {"save_strategy": "steps", "save_steps": 4}
        trainer = watch(parameters.with_adapters(), folder, name, arguments=arguments)
        trainer.train(**resume)
        return trainer, harness.weights_of(trainer.model)

    trainer, whole = train(tmp_path)
    checkpoint = tmp_path / "checkpoint-4"
    assert (checkpoint / "adapter_model.safetensors").is_file()
    assert get_last_checkpoint(str(tmp_path)) == str(tmp_path / "checkpoint-6")
    resumed_trainer, resumed = train(tmp_path / "again", resume_from_checkpoint=str(checkpoint))
    assert resumed_trainer.state.global_step == trainer.state.global_step == 6
    assert len(resumed_trainer.displacements) < len(trainer.displacements)
    assert harness.same_bits(resumed, whole)


@pytest.mark.parametrize("name", ["sam", "sampa"])
def test_frozen_parameters_stay_where_they_are_in_every_pass(name, tmp_path):
    model = setups.classifier()
    for parameter in model.bert.embeddings.parameters():
        parameter.requires_grad = False
    before = harness.weights_of(model)
    # Keys of attention have no gradient but rounding errors, which is a gradient too.
    trained = {key for key, value in model.named_parameters() if value.requires_grad}
    trainer = watch(model, tmp_path, name)
    trainer.train()
    for displacement in trainer.displacements:
        assert set(displacement) <= trained
    for displacement in perturbed_passes(trainer, name):
        assert norm(displacement) == pytest.approx(RHO, rel=1e-9)
    after = harness.weights_of(model)
    for key in before:
        assert torch.equal(before[key], after[key]) is (key.startswith("bert.embeddings"))


@pytest.mark.parametrize("name", ["sam", "sampa"])
def test_tied_weights_are_perturbed_once_and_stay_tied(name, tmp_path):
    model = setups.causal_lm()
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    assert embedding is head
    trainer = watch(model, tmp_path, name, data_collator=setups.collate_for_causal_lm)
    trainer.train()
    for displacement in perturbed_passes(trainer, name):
        # Counted once in the norm, so once in the displacement.
        assert norm(displacement) == pytest.approx(RHO, rel=1e-9)
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight is embedding


def windows_of(rows, accumulation):
    batches = [rows[start : start + 4] for start in range(0, len(rows), 4)]
    batches = [(torch.stack([r["x"] for r in b]), torch.stack([r["labels"] for r in b])) for b in batches]
    windows = [batches[start : start + accumulation] for start in range(0, len(batches), accumulation)]
    return [*windows, *windows, windows[0]]


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("when", ["positive", "every other pass"])
@pytest.mark.parametrize("name", ["sam", "sampa"])
def test_a_branch_that_a_pass_does_not_use_equals_the_reference(name, when, accumulation, tmp_path):
    if when == "every other pass" and accumulation == 2:
        pytest.skip("every window would use the branch")
    rows = harness.make_dataset(40)
    arguments = {
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": accumulation,
        **SKIPPING_ARGUMENTS,
    }
    model, twin = parameters.Skipping(when), parameters.Skipping(when)
    start = harness.weights_of(model)
    setups.train(model, rows, tmp_path, setups.CONFIGS[name], arguments=arguments)
    parameters.reference(twin, windows_of(rows, accumulation), name)
    weights = harness.weights_of(model)
    assert harness.largest_difference(weights, harness.weights_of(twin)) < 1e-12
    assert torch.equal(weights["third.weight"], start["third.weight"])
    second_moved = float((weights["second.weight"] - start["second.weight"]).abs().max())
    if (name, when) == ("sam", "every other pass"):
        # The ascent gradient knows the branch and the descent gradient does not.
        assert second_moved == 0
    else:
        assert second_moved > 1e-3


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("adapters")])
def test_adapters_on_two_ranks_equal_one_process(name, on_one_process, on_two_ranks):
    for rank in on_two_ranks[name]:
        setups.assert_same_weights(rank, on_one_process(name))


@pytest.mark.parametrize("name", ["skipping-sam-global", "skipping-sampa-gradient"])
def test_a_branch_that_some_ranks_do_not_use_equals_one_process(name, on_one_process, on_two_ranks):
    for rank in on_two_ranks[name]:
        setups.assert_same_weights(rank, on_one_process(name))


def test_to_the_trial_step_a_gradient_that_ddp_does_not_know_is_zero(on_two_ranks):
    """Its buckets hold zeros there; on one process the parameter would stay where it is."""
    twin = parameters.Skipping("positive")
    parameters.reference(twin, windows_of(harness.make_dataset(40), 2), "sampa", missing_is_zero=True)
    for rank in on_two_ranks["skipping-sampa"]:
        assert harness.largest_difference(rank["weights"], harness.weights_of(twin)) < 1e-12
