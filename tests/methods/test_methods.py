"""Every method that combines gradients: its reference, its limits, resuming, its gradients, on one rank and on two."""

from functools import partial

import pytest
import torch

from hf_sam import SAMConfig, validation
from tests import harness, reference
from tests.distributed.launch import launch
from tests.equivalence.test_reference import start
from tests.methods import references


RHO, EPOCHS, ACCUMULATION = 0.3, 4, 2
CASES = {
    "penalty": ("penalty", {}, references.penalty),
    "penalty beyond SAM": ("penalty", {"alpha": 1.5}, partial(references.penalty, alpha=1.5)),
    "gsam": ("gsam", {}, references.gsam),
    "gsam from a": ("gsam", {"minimize_perturbed": False}, partial(references.gsam, minimize_perturbed=False)),
    "looksam": ("looksam", {"k": 3}, partial(references.looksam, k=3)),
    "ae_sam": ("ae_sam", {}, references.ae_sam),
}
# What makes a method SAM (with the ascent gradient averaged over ranks), or the stock Trainer.
SAM_LIMITS = {
    "gsam": {"alpha": 0.0},
    "looksam": {"k": 1},
    "ae_sam": {"first": -1e9, "last": -1e9},
}
STOCK_LIMITS = {"penalty": {"alpha": 0.0}, "ae_sam": {"first": 1e9, "last": 1e9}}


def make_run(method, method_args, **options):
    return harness.Run(method=method, config={"rho": RHO, "method_args": method_args}, **options)


def accumulated(examples=40):
    arguments = {"gradient_accumulation_steps": ACCUMULATION, "num_train_epochs": EPOCHS}
    return {"arguments": arguments, "examples": examples}


def expected_weights(w, stream, rule):
    adam, kept = reference.Adam(w, len(stream)), {}
    if rule is references.ae_sam:
        rule = partial(rule, updates=len(stream))
    for window in stream:
        w = adam.step(w, rule(partial(reference.window_gradient, window=window), w, RHO, kept))
    return w, kept


def windows(run, shards):
    return reference.windows_of(harness.make_dataset(run.examples), EPOCHS, shards, ACCUMULATION, batch_size=4)


@pytest.fixture(scope="module")
def on_two(tmp_path_factory):
    runs = {name: make_run(method, args, **accumulated()) for name, (method, args, _) in CASES.items()}
    return launch(2, runs, tmp_path_factory.mktemp("methods"))


@pytest.mark.parametrize("name", CASES)
def test_equals_the_reference_over_20_updates(name, tmp_path):
    method, args, rule = CASES[name]
    run = make_run(method, args, **accumulated())
    stream = windows(run, shards=1)
    result = harness.train(run, tmp_path)
    expected, kept = expected_weights(start(run, tmp_path), stream, rule)
    assert result["state"]["global_step"] == len(stream) == 20
    assert harness.largest_difference(result["weights"], expected) < 1e-10
    if method == "ae_sam":
        assert 3 < kept["ascents"] < 17


@pytest.mark.parametrize("name", CASES)
def test_equals_the_reference_on_two_ranks(name, on_two, tmp_path):
    method, args, rule = CASES[name]
    run = make_run(method, args, **accumulated())
    first, second = on_two[name]
    expected, _ = expected_weights(start(run, tmp_path), windows(run, shards=2), rule)
    assert first["trace"].hashes == second["trace"].hashes
    assert harness.largest_difference(first["weights"], expected) < 1e-10


@pytest.mark.parametrize("method", SAM_LIMITS)
def test_in_the_limit_it_is_sam_bit_for_bit(method, tmp_path):
    options = {"model": {"dropout": 0.3, "batch_norm": True}}
    sam = harness.train(harness.Run(config={"rho": RHO}, **options), tmp_path)
    limit = harness.train(make_run(method, SAM_LIMITS[method], **options), tmp_path)
    assert limit["trace"].hashes == sam["trace"].hashes
    assert torch.equal(limit["rng"], sam["rng"])


@pytest.mark.parametrize("method", STOCK_LIMITS)
def test_in_the_other_limit_it_is_the_stock_trainer_bit_for_bit(method, tmp_path):
    options = {"model": {"dropout": 0.3, "batch_norm": True}}
    stock = harness.train(harness.Run(trainer="stock", **options), tmp_path)
    limit = harness.train(make_run(method, STOCK_LIMITS[method], **options), tmp_path)
    # The first update of AE-SAM has nothing to compare with; a threshold above all makes it SAM's all the same.
    if method == "ae_sam":
        assert limit["trace"].hashes[0] != stock["trace"].hashes[0]
        assert torch.equal(limit["rng"], stock["rng"])
    else:
        assert limit["trace"].hashes == stock["trace"].hashes


@pytest.mark.parametrize("name", CASES)
def test_resumed_equals_uninterrupted(name, tmp_path):
    method, args, _ = CASES[name]
    saved = {"save_strategy": "steps", "save_steps": 1, "train_sampling_strategy": "random"}
    options = {"arguments": saved, "model": {"dropout": 0.3}}
    whole = harness.train(make_run(method, args, **options), tmp_path)
    checkpoint = str(tmp_path / "checkpoint-8")
    resumed = harness.train(make_run(method, args, resume_from=checkpoint, **options), tmp_path / "again")
    assert resumed["trace"].hashes == whole["trace"].hashes[8:]
    assert torch.equal(resumed["rng"], whole["rng"])


@pytest.mark.parametrize(("name", "passes"), [("penalty", 44), ("gsam", 44), ("looksam", 22 + 8), ("ae_sam", None)])
def test_the_gradients_are_as_many_as_declared(name, passes, tmp_path):
    method, args, rule = CASES[name]
    run = make_run(method, args)
    trainer = harness.make_trainer(run, tmp_path)
    trainer.train()
    if passes is None:
        stream = reference.windows_of(harness.make_dataset(run.examples), 2, 1, 1, batch_size=4)
        passes = 22 + expected_weights(start(run, tmp_path), stream, rule)[1]["ascents"]
    assert trainer.model.passes == passes


@pytest.mark.parametrize("name", CASES)
def test_the_loss_scale_of_fp16_cancels(name, tmp_path):
    method, args, _ = CASES[name]
    plain = harness.train(make_run(method, args), tmp_path)
    scaled = harness.train(make_run(method, args, loss_scale=2.0**10), tmp_path)
    assert harness.largest_difference(plain["weights"], scaled["weights"]) < 1e-9


@pytest.mark.parametrize("name", CASES)
def test_an_overflow_is_skipped_and_leaves_no_trace_in_what_is_kept(name, tmp_path):
    method, args, _ = CASES[name]
    run = make_run(method, args, loss_scale=2.0**10, model={"explode_at": [6]})
    result = harness.train(run, tmp_path)
    scales = result["trace"].scales
    assert any(later < earlier for earlier, later in zip([2.0**10, *scales], scales, strict=False))
    assert all(torch.isfinite(weight).all() for weight in result["weights"].values())


def test_the_decoupled_form_steps_apart_and_never_where_the_optimizer_does_not(tmp_path):
    """With SGD w - η a - η α (p - a) is a step with (1 - α) a + α p."""
    arguments = {"optim": "sgd", "weight_decay": 0.0, "max_grad_norm": 0.0}
    coupled = harness.train(make_run("penalty", {"alpha": 0.7}, arguments=arguments), tmp_path)
    args = {"alpha": 0.7, "form": "decoupled"}
    decoupled = harness.train(make_run("penalty", args, arguments=arguments), tmp_path)
    assert harness.largest_difference(coupled["weights"], decoupled["weights"]) < 1e-12
    scaled = make_run("penalty", args, arguments=arguments, loss_scale=2.0**10, model={"explode_at": [6]})
    weights = harness.train(scaled, tmp_path)["trace"].weights
    assert harness.same_bits(weights[3], weights[2])


@pytest.mark.parametrize("method", ["penalty", "gsam", "looksam", "ae_sam"])
def test_what_asks_for_parts_of_windows_is_refused(method, tmp_path):
    trainer = harness.make_trainer(harness.Run(), tmp_path)
    with pytest.raises(ValueError, match=f"method='{method}' cannot be combined with ascent_scope='micro_batch'"):
        validation.check_compatibility(trainer, SAMConfig(method, ascent_scope="micro_batch"))
