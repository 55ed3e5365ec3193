"""What must hold around the arithmetic: weights come back, statistics move once, logs and evaluation are at w_t."""

import pytest
import torch
from safetensors.torch import load_file

from hf_sam.perturbations import Ascent
from hf_sam.perturbations.gradient import GradientAscent
from hf_sam.weights import displace, global_norm, preserved_weights
from tests import harness


def batches(examples=44, size=4):
    rows = harness.make_dataset(examples)
    groups = [rows[start : start + size] for start in range(0, examples, size)]
    return [{key: torch.stack([row[key] for row in group]) for key in ("x", "labels")} for group in groups]


class FailingModel(harness.TinyModel):
    def __init__(self, failing_pass):
        super().__init__()
        self.failing_pass = failing_pass

    def forward(self, x, labels=None):
        if self.passes == self.failing_pass:
            raise RuntimeError("the device is lost")
        return super().forward(x, labels)


@pytest.mark.parametrize(("method", "failing_pass"), [("sam", 1), ("sampa", 1), ("sampa", 2)])
def test_weights_come_back_when_a_pass_fails(method, failing_pass, tmp_path):
    trainer = harness.make_trainer(harness.Run(method=method), tmp_path)
    model = FailingModel(failing_pass).double()
    trainer.model = trainer.model_wrapped = model
    before = harness.weights_of(model)
    with pytest.raises(RuntimeError, match="the device is lost"):
        trainer.train()
    assert harness.same_bits(before, harness.weights_of(model))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_restored_bit_for_bit_in_every_dtype(dtype):
    weights = [torch.randn(50, 40).to(dtype) for _ in range(3)]
    before = [weight.clone() for weight in weights]
    with preserved_weights(weights):
        displace(weights, GradientAscent()(Ascent(weights, [torch.randn_like(weight) for weight in weights], 0.7))[0])
        assert not any(torch.equal(now, then) for now, then in zip(weights, before, strict=True))
    assert all(torch.equal(now, then) for now, then in zip(weights, before, strict=True))


def test_the_radius_is_one_norm_over_everything_in_float32_or_wider():
    # In bfloat16 or float16 alone these squares would lose their digits or overflow.
    gradients = [torch.full((300, 300), 200.0, dtype=torch.float16), torch.full((1000,), 0.1, dtype=torch.bfloat16)]
    exact = torch.sqrt(sum((gradient.double() ** 2).sum() for gradient in gradients))
    norm = global_norm(gradients)
    assert norm.dtype == torch.float32
    assert norm == pytest.approx(float(exact), rel=1e-6)
    displacement, reported = GradientAscent()(Ascent(gradients, [g.double() for g in gradients], 0.25))
    assert float(global_norm(displacement)) == pytest.approx(0.25, rel=1e-12)
    assert float(reported) == pytest.approx(float(exact), rel=1e-12)


def test_a_zero_gradient_perturbs_nothing_and_no_gradient_is_no_error():
    zero = [torch.zeros(4), torch.zeros(2, 2)]
    displacement, norm = GradientAscent()(Ascent(zero, zero, 0.5))
    assert float(norm) == 0.0
    assert all(torch.equal(entry, torch.zeros_like(entry)) for entry in displacement)
    assert GradientAscent()(Ascent([], [], 0.5)) == ([], torch.zeros(()))


def test_running_statistics_move_once_per_update_from_the_unperturbed_pass(tmp_path):
    run = harness.Run(model={"batch_norm": True}, config={"rho": 0.5}, arguments={"num_train_epochs": 1})
    trainer = harness.make_trainer(run, tmp_path)
    start, model = harness.weights_of(trainer.model), trainer.model
    trace = harness.train(run, tmp_path)["trace"]
    assert int(trace.weights[-1]["norm.num_batches_tracked"]) == 11
    for before, after, batch in zip([start, *trace.weights[:-1]], trace.weights, batches(), strict=True):
        model.load_state_dict(before)
        model.train()
        model(**batch)
        for name in ("norm.running_mean", "norm.running_var"):
            assert torch.equal(model.state_dict()[name], after[name])


@pytest.mark.parametrize("method", ["sam", "sampa"])
def test_statistics_are_tracked_once_for_each_micro_batch(method, tmp_path):
    arguments = {"gradient_accumulation_steps": 3, "num_train_epochs": 2}
    run = harness.Run(method=method, model={"batch_norm": True}, arguments=arguments)
    weights = harness.train(run, tmp_path)["trace"].weights
    moved = [int(entry["norm.num_batches_tracked"]) for entry in weights]
    windows = [3, 3, 3, 2] * 2
    if method == "sampa":  # The unperturbed pass is the one over the next window.
        windows = [*windows[1:], 3]
    assert moved == torch.tensor(windows).cumsum(0).tolist()


def test_logged_values_are_those_at_the_weights_and_at_the_perturbed_weights(tmp_path):
    run = harness.Run(config={"rho": 0.5}, arguments={"num_train_epochs": 1})
    trainer = harness.make_trainer(run, tmp_path)
    start, model = harness.weights_of(trainer.model), trainer.model
    result = harness.train(run, tmp_path)
    log = [entry for entry in result["log"] if "loss" in entry]
    for before, entry, batch in zip([start, *result["trace"].weights[:-1]], log, batches(), strict=True):
        model.load_state_dict(before)
        loss = model(**batch)["loss"]
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        norm = torch.sqrt(sum((gradient**2).sum() for gradient in gradients))
        with torch.no_grad():
            for weight, gradient in zip(model.parameters(), gradients, strict=True):
                weight.add_(0.5 * gradient / norm)
            perturbed_loss = model(**batch)["loss"]
        assert entry["loss"] == pytest.approx(loss.item(), abs=1e-6)
        assert entry["sam/perturbed_loss"] == pytest.approx(float(perturbed_loss), abs=1e-6)
        assert entry["sam/sharpness"] == pytest.approx((perturbed_loss - loss).item(), abs=1e-6)
        assert entry["sam/ascent_grad_norm"] == pytest.approx(float(norm), abs=1e-6)


@pytest.mark.parametrize("method", ["sam", "sampa"])
def test_evaluation_and_checkpoints_in_the_middle_are_at_the_weights(method, tmp_path):
    arguments = {"eval_strategy": "steps", "eval_steps": 4, "save_strategy": "steps", "save_steps": 4}
    run = harness.Run(method=method, config={"rho": 2.0}, arguments=arguments)
    model = harness.make_trainer(run, tmp_path).model
    result = harness.train(run, tmp_path)
    evaluations = [entry for entry in result["log"] if "eval_loss" in entry]
    assert [entry["step"] for entry in evaluations] == [4, 8, 12, 16, 20, 22]
    held_out = batches(44, 8)[0]
    for entry in evaluations:
        model.load_state_dict(result["trace"].weights[entry["step"] - 1])
        model.eval()
        assert entry["eval_loss"] == pytest.approx(float(model(**held_out)["loss"]), abs=1e-6)
        saved = load_file(tmp_path / f"checkpoint-{entry['step']}" / "model.safetensors")
        assert harness.same_bits(saved, harness.weights_of(model))


@pytest.mark.parametrize("method", ["sam", "sampa"])
def test_frozen_parameters_stay_and_unused_ones_get_no_state(method, tmp_path):
    run = harness.Run(method=method, model={"frozen": True, "unused": True})
    start = harness.weights_of(harness.make_trainer(run, tmp_path).model)
    end = harness.train(run, tmp_path)["weights"]
    still = {name for name in start if torch.equal(start[name], end[name])}
    assert still == {"inner.weight", "unused.weight", "unused.bias"}
