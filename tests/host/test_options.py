"""Options of TrainingArguments that touch the forward pass, the loop, or start it again."""

import pytest
import torch

from hf_sam import SAMConfig
from tests import harness, reference
from tests.host import setups
from tests.host.trainers import Stream


METHODS = ("sam", "sampa")


def train_lm(folder, config, model=None, **arguments):
    model = model or setups.causal_lm(dropout=0.1)
    options = {"data_collator": setups.collate_for_causal_lm, "arguments": arguments}
    return setups.train(model, setups.sentences(24), folder, config, **options)


# ---- noise, smoothing, recomputation ----


def test_neftune_noise_is_the_same_in_both_passes(tmp_path):
    """The noise comes from the random stream that dropout draws from: without a radius nothing is left of SAM."""
    stock = train_lm(tmp_path, None, neftune_noise_alpha=5.0)
    ours = train_lm(tmp_path, SAMConfig(rho=0.0), neftune_noise_alpha=5.0)
    assert harness.same_bits(ours["weights"], stock["weights"])
    assert ours["losses"] == ours["perturbed_losses"] == stock["losses"]
    other = train_lm(tmp_path, SAMConfig(rho=0.0, same_dropout_mask=False), neftune_noise_alpha=5.0)
    assert other["losses"] != other["perturbed_losses"]
    setups.assert_moved(train_lm(tmp_path, None), stock, least=1e-3)


@pytest.mark.parametrize("name", METHODS)
def test_neftune_noise_reaches_both_gradients(name, tmp_path):
    config = setups.CONFIGS[name]
    setups.assert_moved(train_lm(tmp_path, config, neftune_noise_alpha=5.0), train_lm(tmp_path, config), least=1e-3)


def test_label_smoothing_without_a_radius_is_the_stock_trainers(tmp_path):
    options = {"label_smoothing_factor": 0.2, "gradient_accumulation_steps": 2, "per_device_train_batch_size": 4}
    stock = train_lm(tmp_path, None, **options)
    assert harness.same_bits(train_lm(tmp_path, SAMConfig(rho=0.0), **options)["weights"], stock["weights"])
    smoothed = train_lm(tmp_path, setups.CONFIGS["sampa"], **options)
    plain = train_lm(tmp_path, setups.CONFIGS["sampa"], **options | {"label_smoothing_factor": 0.0})
    setups.assert_moved(smoothed, plain, least=1e-3)


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("name", METHODS)
def test_recomputed_activations_change_nothing(name, reentrant, tmp_path):
    """Dropout is on: what is recomputed in the backward pass draws the masks of its own forward pass."""
    plain = train_lm(tmp_path, setups.CONFIGS[name])
    options = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": reentrant}}
    model, calls = setups.causal_lm(dropout=0.1), []
    model.transformer.h[0].mlp.register_forward_pre_hook(lambda *_: calls.append(None))
    recomputed = train_lm(tmp_path, setups.CONFIGS[name], model=model, **options)
    setups.assert_same_weights(recomputed, plain, tolerance=1e-12)
    assert recomputed["losses"] == plain["losses"]
    # Every forward pass ran twice; SAMPa has one more for h_0.
    assert len(calls) == 2 * (2 * plain["steps"] + (name == "sampa"))


# ---- streams ----


def reference_of_stream(folder, epochs, steps, updates, after_the_last, method, examples=44):
    w = harness.weights_of(harness.make_trainer(harness.Run(), folder).model)
    rows = harness.make_dataset(examples) * epochs
    windows = reference.windows_of(rows, 1, shards=1, accumulation=steps, batch_size=4)
    if method == "sam":
        return reference.train_sam(w, windows[:updates], 0.3, "rank")
    upcoming = windows[updates] if after_the_last else None
    return reference.train_sampa(w, windows[:updates], 0.3, 0.1, after_the_last=upcoming)


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("method", METHODS)
def test_a_stream_goes_on_across_its_end(method, steps, tmp_path):
    """SAMPa knows no epochs here: windows follow each other, cut by nothing. SAM sees the host's."""
    updates = 20 if steps == 1 else 8
    if method == "sam" and steps == 3:
        updates = 3  # The host cuts a window at the end of a stream's pass, after 11 batches.
    run = harness.Run(
        method=method,
        config={"rho": 0.3},
        iterable=True,
        arguments={"max_steps": updates, "gradient_accumulation_steps": steps},
    )
    result = harness.train(run, tmp_path)
    assert result["state"]["global_step"] == updates
    expected = reference_of_stream(tmp_path, 3, steps, updates, True, method)
    assert harness.largest_difference(result["weights"], expected) < 1e-10


@pytest.mark.parametrize(("steps", "updates"), [(1, 9), (3, 3)])
def test_a_stream_that_really_ends_has_no_lookahead_at_its_end(steps, updates, tmp_path):
    """The last update uses λ = 0."""

    def train(max_steps):
        arguments = {"max_steps": max_steps, "gradient_accumulation_steps": steps}
        run = harness.Run(method="sampa", config={"rho": 0.3}, iterable=True, arguments=arguments)
        trainer = harness.make_trainer(run, tmp_path)
        trainer.train_dataset = Stream(harness.make_dataset(36), passes=1)
        trainer.train()
        return trainer

    trainer = train(updates)
    assert trainer.state.global_step == updates
    weights = harness.weights_of(trainer.model)
    assert (
        harness.largest_difference(weights, reference_of_stream(tmp_path, 1, steps, updates, False, "sampa", 36))
        < 1e-10
    )
    assert (
        harness.largest_difference(weights, reference_of_stream(tmp_path, 2, steps, updates, True, "sampa", 36)) > 1e-6
    )
    # Told to go on for longer, training stops where there is nothing more to read.
    assert train(updates + 5).state.global_step == updates


# ---- a batch size that fits ----


class OutOfMemoryOnce(torch.nn.Module):
    """`TinyModel` that runs out of memory in the backward pass at perturbed weights, but only once."""

    def __init__(self, failing_pass):
        super().__init__()
        torch.manual_seed(3)
        self.inner = harness.TinyModel().double()
        self.passes, self.failing_pass, self.failed_at = 0, failing_pass, None

    def forward(self, x, labels=None):
        outputs = self.inner(x, labels)
        self.passes += 1
        if self.passes == self.failing_pass:
            outputs["loss"].register_hook(self.fail)
        return outputs

    def fail(self, gradient):
        self.failed_at = harness.weights_of(self.inner)
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@pytest.mark.parametrize(("name", "failing_pass"), [("sam", 2), ("sampa", 2), ("sampa", 3)])
def test_auto_find_batch_size_starts_again_from_the_unperturbed_weights(name, failing_pass, tmp_path):
    """SAM: the descent pass. SAMPa: the perturbed pass, and the lookahead pass (the first pass is that of h_0)."""

    def run(size, fails):
        model = OutOfMemoryOnce(failing_pass if fails else None)
        start = harness.weights_of(model.inner)
        # With a learning rate of 0 at the first update, which warms up, the lookahead weights would be the weights.
        arguments = {"per_device_train_batch_size": size, "auto_find_batch_size": True}
        trainer = setups.make_trainer(
            model, harness.make_dataset(44), tmp_path, setups.CONFIGS[name], arguments=arguments
        )
        trainer.train()
        if fails:
            assert trainer.state.train_batch_size < size
            assert harness.largest_difference(model.failed_at, start) > 1e-3
        return setups.outcome(trainer), trainer.state.train_batch_size

    found, size = run(8, fails=True)
    afresh, _ = run(size, fails=False)
    assert harness.same_bits(found["weights"], afresh["weights"])
    assert found["losses"] == afresh["losses"]
    assert found["steps"] == 2 * -(-44 // size)


@pytest.mark.parametrize("failing_update", [4, 9])
def test_memory_that_runs_out_in_the_second_pass_amid_an_epoch_is_what_it_is_to_the_stock_trainer(
    failing_update, tmp_path
):
    """Update by update: the stock Trainer fails in its only pass, SAM with a radius of 0 in its second."""

    def run(config, passes_per_update):
        model = OutOfMemoryOnce(failing_update * passes_per_update)
        arguments = {"per_device_train_batch_size": 4, "auto_find_batch_size": True}
        trainer = setups.make_trainer(model, harness.make_dataset(44), tmp_path, config, arguments=arguments)
        trainer.train()
        assert model.failed_at is not None
        return setups.outcome(trainer)

    stock, ours = run(None, 1), run(SAMConfig(rho=0.0), 2)
    assert harness.same_bits(ours["weights"], stock["weights"])
    assert ours["losses"] == stock["losses"]
    assert ours["steps"] == stock["steps"]
