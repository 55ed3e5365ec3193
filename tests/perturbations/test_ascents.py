"""Ascent directions that are remembered, random, of another batch or loss: each against an independent reference."""

import math
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from hf_sam.rng import Draws
from tests import harness, reference
from tests.distributed.launch import launch
from tests.equivalence.test_reference import start
from tests.perturbations import ascents


TOLERANCE = 1e-10
STOP = 7
BOTH = ("rank", "global")


@dataclass(frozen=True)
class Case:
    """
    Args:
        rule (`Callable`): makes the reference.
        config (`dict`): of `SAMConfig`, beside ρ.
        cost (`float`): gradients of a window in an update, on one process.
        scopes (`tuple`): those in which it runs on two ranks; the reference of `None` knows one process only.
        pairs (`bool`): two ranks are one pair, with one shard of the data.
        first (`int`): gradients that the first update needs beside.
    """

    rule: Any
    config: dict[str, Any] = field(default_factory=dict)
    method: str = "sam"
    cost: float = 2
    scopes: tuple[str, ...] = BOTH
    pairs: bool = False
    first: int = 0

    def run(self, scope: str = "rank", **options: Any) -> harness.Run:
        config = {"rho": ascents.RHO, "ascent_scope": scope, **self.config}
        return harness.Run(method=self.method, config=config, **options)


def perturbation(name, **args):
    return {"perturbation": name, "perturbation_args": args}


SIGMAS = {"sigma": 0.05, "sigma_end": 0.2}
CASES = {
    "friendly": Case(lambda: ascents.Friendly(0.8, 0.7), perturbation("friendly", sigma=0.8, momentum=0.7)),
    "vasso": Case(lambda: ascents.VaSSO(0.4), perturbation("vasso", theta=0.4)),
    "momentum": Case(ascents.Momentum, perturbation("momentum"), cost=1, scopes=("rank",)),
    "random": Case(ascents.Random, perturbation("random"), cost=1),
    "previous": Case(ascents.Previous, perturbation("previous"), cost=1, scopes=("rank",)),
    "stale": Case(ascents.Stale, method="stale", scopes=("rank",), pairs=True, first=1),
    "stale part": Case(
        lambda: ascents.Stale(0.5),
        {"ascent_fraction": 0.5},
        method="stale",
        cost=1.5,
        scopes=("rank",),
        pairs=True,
        first=1,
    ),
    "other batch": Case(ascents.OtherBatch, method="other_batch"),
    "random smoothing": Case(
        lambda: ascents.RandomSmoothing(0.05, 0.2), {"method_args": SIGMAS}, method="random_smoothing"
    ),
    "half": Case(lambda: ascents.Fraction(0.5), {"ascent_fraction": 0.5}, cost=1.5),
    "bisam tanh": Case(lambda: ascents.BiSAM("tanh"), {"ascent_loss": "bisam"}),
    "bisam log": Case(
        lambda: ascents.BiSAM("log"), {"ascent_loss": "bisam", "ascent_loss_args": {"form": "log"}}, scopes=("rank",)
    ),
    "sometimes": Case(lambda: ascents.Sometimes(0.5), {"probability": 0.5}, scopes=("rank",)),
}


def stream_of(run, shards=1):
    arguments = {"gradient_accumulation_steps": 1, "num_train_epochs": 2} | run.arguments
    rows = harness.make_dataset(run.examples)
    return reference.windows_of(
        rows, arguments["num_train_epochs"], shards, arguments["gradient_accumulation_steps"], batch_size=4
    )


def expected(case, run, folder, shards=1, scope="rank"):
    stream = stream_of(run, shards)
    return ascents.train(case.rule(), start(run, folder), stream, scope), len(stream)


@pytest.mark.parametrize("name", CASES)
def test_equals_the_reference_over_20_updates(name, tmp_path):
    # 11 batches: each epoch ends with a window of one.
    run = CASES[name].run(arguments={"gradient_accumulation_steps": 2, "num_train_epochs": 4})
    result = harness.train(run, tmp_path)
    weights, updates = expected(CASES[name], run, tmp_path)
    assert result["state"]["global_step"] == updates >= 20
    assert harness.largest_difference(result["weights"], weights) < TOLERANCE


def test_the_references_differ_from_each_other_and_from_adamw(tmp_path):
    """What is compared above would not pass by doing the same."""
    run = harness.Run()
    ends = [expected(case, run, tmp_path)[0] for case in CASES.values()]
    ends += [ascents.train(rule, start(run, tmp_path), stream_of(run), "rank") for rule in (ascents.SAM(),)]
    ends.append(reference.train_sam(start(run, tmp_path), stream_of(run), 0.0, "rank"))
    for place, one in enumerate(ends):
        assert min(harness.largest_difference(one, other) for other in ends[:place] + ends[place + 1 :]) > 1e-5


# ---- two ranks ----


def runs_on_two(folder):
    runs = {}
    for name, case in CASES.items():
        for scope in case.scopes:
            key = f"{name} {scope}"
            saved = {"save_strategy": "steps", "save_steps": STOP}
            arguments = {"gradient_accumulation_steps": 2, "num_train_epochs": 4 if case.pairs else 7, **saved}
            runs[key] = case.run(scope, examples=40 if case.pairs else 48, arguments=arguments)
            runs[f"{key} resumed"] = case.run(
                scope, examples=runs[key].examples, arguments=arguments, resume_from=str(folder / key / "checkpoint-7")
            )
    return runs


@pytest.fixture(scope="module")
def on_two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    runs = runs_on_two(folder)
    return folder, runs, launch(2, runs, folder, timeout=900)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", CASES)
def test_on_two_ranks_it_equals_the_reference_and_both_hold_the_same_bits(name, on_two, tmp_path):
    _, runs, results = on_two
    case = CASES[name]
    for scope in case.scopes:
        first, second = results[f"{name} {scope}"]
        assert first["trace"].hashes == second["trace"].hashes
        weights, updates = expected(case, runs[f"{name} {scope}"], tmp_path, 1 if case.pairs else 2, scope)
        assert first["state"]["global_step"] == updates >= 20
        assert harness.largest_difference(first["weights"], weights) < TOLERANCE, scope


@pytest.mark.parametrize("name", CASES)
def test_on_two_ranks_resumed_equals_uninterrupted(name, on_two):
    _, _, results = on_two
    for scope in CASES[name].scopes:
        for whole, resumed in zip(results[f"{name} {scope}"], results[f"{name} {scope} resumed"], strict=True):
            assert resumed["trace"].hashes == whole["trace"].hashes[STOP:]


def test_ranks_that_differ_write_a_state_each_and_others_one(on_two):
    folder = on_two[0]

    def files(name):
        return sorted(path.name for path in (folder / name / "checkpoint-7").glob("sam_state*"))

    for name in ("vasso", "friendly"):
        assert files(f"{name} rank") == ["sam_state_0.safetensors", "sam_state_1.safetensors"]
        assert files(f"{name} global") == ["sam_state.safetensors"]
    for name in ("previous rank", "stale rank", "stale part rank"):
        assert files(name) == ["sam_state.safetensors"]
    for name in ("momentum rank", "random rank", "random smoothing rank", "other batch rank"):
        assert files(name) == []


# ---- one process ----


@pytest.mark.parametrize("name", CASES)
def test_resumed_equals_uninterrupted(name, tmp_path):
    options = {
        "arguments": {"save_strategy": "steps", "save_steps": STOP, "train_sampling_strategy": "random"},
        "model": {"dropout": 0.3},
    }
    whole = harness.train(CASES[name].run(**options), tmp_path)
    checkpoint = str(tmp_path / f"checkpoint-{STOP}")
    resumed = harness.train(CASES[name].run(resume_from=checkpoint, **options), tmp_path / "again")
    assert resumed["trace"].hashes == whole["trace"].hashes[STOP:]
    assert torch.equal(resumed["rng"], whole["rng"])


@pytest.mark.parametrize("name", CASES)
def test_costs_the_gradients_that_it_says(name, monkeypatch, tmp_path):
    rows, forward = [], harness.TinyModel.forward

    def counted(self, x, labels=None):
        rows.append(len(x))
        return forward(self, x, labels)

    monkeypatch.setattr(harness.TinyModel, "forward", counted)
    case = CASES[name]
    trainer = harness.make_trainer(case.run(), tmp_path)
    trainer.train()
    assert trainer.sam_method.gradients_per_update == case.cost
    per_window = 4
    if name == "sometimes":
        stock = sum(not case.rule().perturbs(t) for t in range(22))
        assert 0 < stock < 22
        assert sum(rows) == per_window * (44 - stock)
        return
    # Before the first update only, a part costs its part.
    first = case.first * case.config.get("ascent_fraction", 1)
    assert sum(rows) == per_window * (22 * case.cost + first)


LIMITS = {
    "vasso": perturbation("vasso", theta=1.0),
    "friendly": perturbation("friendly", sigma=0.0),
    "random smoothing": {"method_args": {"sigma": 0.0, "sigma_end": 0.0}},
    "half": {"ascent_fraction": 1.0},
    "sometimes": {"probability": 1.0},
    "bisam": {"ascent_loss": "training"},
}


@pytest.mark.parametrize("name", LIMITS)
def test_at_its_limit_it_has_the_bits_of_sam(name, tmp_path):
    method = "random_smoothing" if name == "random smoothing" else "sam"
    options = {"dtype": "float32", "model": {"dropout": 0.3}}
    ours = harness.train(harness.Run(method=method, config={"rho": 0.3} | LIMITS[name], **options), tmp_path)
    plain = harness.train(harness.Run(config={"rho": 0.3}, **options), tmp_path)
    assert ours["trace"].hashes == plain["trace"].hashes
    assert torch.equal(ours["rng"], plain["rng"])


@pytest.mark.parametrize("name", ["random", "random smoothing", "sometimes"])
def test_random_numbers_of_their_own_leave_the_streams_where_a_stock_run_leaves_them(name, tmp_path):
    model = {"dropout": 0.3}
    stock = harness.train(harness.Run(trainer="stock", model=model), tmp_path)
    assert torch.equal(harness.train(CASES[name].run(model=model), tmp_path)["rng"], stock["rng"])


def test_draws_depend_on_seed_update_purpose_and_rank_alone():
    like = [torch.zeros(3, 2), torch.zeros(2, dtype=torch.bfloat16)]

    def drawn(shared=False, purpose="a", **where):
        return torch.cat([x.flatten().float() for x in Draws(**where).normal(purpose, like, shared)])

    first = drawn(seed=1, update=2, rank=0)
    torch.manual_seed(99)
    assert torch.equal(first, drawn(seed=1, update=2, rank=0))
    others = [drawn(update=2), drawn(seed=1), drawn(seed=1, update=2, rank=1), drawn(purpose="b", seed=1, update=2)]
    assert all(not torch.equal(first, other) for other in others)
    assert torch.equal(drawn(True, seed=1, rank=0), drawn(True, seed=1, rank=3))
    uniform = torch.tensor([Draws(5, update).uniform("x") for update in range(2000)])
    assert float(uniform.min()) >= 0
    assert float(uniform.max()) < 1
    assert abs(float(uniform.mean()) - 0.5) < 4 / math.sqrt(12 * 2000)


# Passes over batches of which the gradient is infinite, and the update that is skipped for it.
OVERFLOWS = {
    "vasso": {(0,): 0, (8,): 4, (9,): 4},
    "friendly": {(0,): 0, (1,): 0, (8,): 4, (9,): 4},
    "previous": {(0,): 0, (5,): 5},
}


@pytest.mark.parametrize(("name", "passes"), [(name, passes) for name in OVERFLOWS for passes in OVERFLOWS[name]])
def test_a_skipped_update_advances_nothing(name, passes, tmp_path):
    """As if its window had not been there, whichever of its gradients is infinite."""
    skipped = OVERFLOWS[name][passes]
    run = CASES[name].run(loss_scale=2.0**10, model={"explode_at": list(passes)})
    result = harness.train(run, tmp_path)
    scales = [2.0**10, *result["trace"].scales]
    assert scales[skipped + 1] == scales[skipped] / 2
    stream = stream_of(run)
    kept = stream[:skipped] + stream[skipped + 1 :]
    weights = ascents.train(CASES[name].rule(), start(run, tmp_path), kept, "rank", updates=len(stream))
    assert harness.largest_difference(result["weights"], weights) < 1e-9


def test_stale_sam_begins_anew_where_its_gradient_overflows(tmp_path):
    """a_4 is infinite, so update 4 is skipped, and update 5 perturbs along the gradient at its own weights."""
    run = CASES["stale"].run(loss_scale=2.0**10, model={"explode_at": [10]})
    result = harness.train(run, tmp_path)
    assert result["trace"].scales[4] == result["trace"].scales[3] / 2
    rule, stream = ascents.Stale(), stream_of(run)

    class Again(ascents.Stale):
        def gradient(self, now):
            if now.t == 4:
                self.a = None
            return super().gradient(now)

    rule = Again()
    kept = stream[:4] + stream[5:]
    weights = ascents.train(rule, start(run, tmp_path), kept, "rank", updates=len(stream))
    assert harness.largest_difference(result["weights"], weights) < 1e-9


@pytest.mark.parametrize("name", CASES)
def test_weights_with_no_gradient_and_frozen_ones_stay_where_they_are(name, tmp_path):
    trainer = harness.make_trainer(CASES[name].run(model={"unused": True, "frozen": True}), tmp_path)
    before = harness.weights_of(trainer.model)
    trainer.train()
    after = harness.weights_of(trainer.model)
    still = {key for key in before if torch.equal(before[key], after[key])}
    assert still == {"inner.weight", "unused.weight", "unused.bias"}


@pytest.mark.parametrize("name", ["momentum", "random", "previous"])
def test_without_an_unperturbed_pass_no_sharpness_is_logged(name, tmp_path):
    log = [entry for entry in harness.train(CASES[name].run(), tmp_path)["log"] if "loss" in entry]
    assert len(log) == 22
    assert not any(key.startswith("sam/") for entry in log for key in entry)
