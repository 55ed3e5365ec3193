"""What the ascent gradient is taken of: a part of the window, another loss, data of one pair; and states of ranks."""

import logging
import math

import pytest
import torch
from torch import nn

from hf_sam import SAMConfig, validation
from hf_sam.ascent_losses import AscentPass
from hf_sam.ascent_losses.bisam import BiSAM, BiSAMOptions
from hf_sam.checkpoints.method_state import load_state, save_state
from hf_sam.engine import MicroBatch
from hf_sam.parts import part_of
from tests import harness, reference
from tests.distributed.launch import launch
from tests.host import setups
from tests.perturbations import ascents


# ---- a part of the window ----


def batch(rows, **extra):
    return {
        "x": torch.arange(rows * 2.0).view(rows, 2),
        "labels": torch.arange(rows),
        "scale": torch.tensor(2.0),
        **extra,
    }


@pytest.mark.parametrize(("fraction", "count"), [(0.01, 1), (0.25, 1), (0.26, 2), (0.5, 2), (0.75, 3), (0.76, 4)])
def test_of_several_micro_batches_the_first_are_taken(fraction, count):
    window = [MicroBatch(batch(3), 24, 4) for _ in range(4)]
    part = part_of(window, fraction)
    assert [taken.inputs for taken in part] == [whole.inputs for whole in window[:count]]
    # Means, and sums over a number of items, are means over the part.
    assert {(taken.accumulation_steps, taken.num_items_in_batch) for taken in part} == {(count, 24 * count / 4)}


@pytest.mark.parametrize(("fraction", "rows"), [(0.01, 1), (0.1, 3), (0.11, 4), (0.5, 15), (1.0, 30)])
def test_of_a_single_micro_batch_the_first_rows_are_taken(fraction, rows):
    whole = MicroBatch(batch(30, names=["a"] * 30, nested={"y": torch.ones(30, 4)}), torch.tensor(60), 1)
    (part,) = part_of([whole], fraction)
    assert torch.equal(part.inputs["x"], whole.inputs["x"][:rows])
    assert torch.equal(part.inputs["labels"], torch.arange(rows))
    assert part.inputs["nested"]["y"].shape == (rows, 4)
    assert part.inputs["scale"] == 2.0
    assert part.accumulation_steps == 1
    assert part.num_items_in_batch == 60 * rows / 30
    assert whole.inputs["x"].shape == (30, 2)


def test_a_batch_without_tensors_has_no_rows_to_take():
    with pytest.raises(ValueError, match=r"ascent_fraction=0.5.*gradient accumulation"):
        part_of([MicroBatch({"text": ["a", "b"]})], 0.5)


def test_the_loss_of_a_part_is_that_of_its_share_of_the_tokens(tmp_path):
    """A language model whose losses are sums over the number of tokens in the window."""
    rows, model = setups.sentences(8), setups.causal_lm()
    arguments = {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 4, "num_train_epochs": 1}
    options = {"data_collator": setups.collate_for_causal_lm}
    labels = setups.collate_for_causal_lm(rows)["labels"]
    with torch.no_grad():
        batch = setups.collate_for_causal_lm(rows[:4])
        total = model.train()(**batch, num_items_in_batch=1).loss
    config = SAMConfig(ascent_fraction=0.5)
    result = setups.train(model, rows, tmp_path, config, arguments=arguments, **options)
    items = sum(float((row != -100).sum()) for row in labels)
    assert result["steps"] == 1
    assert result["losses"][0] == pytest.approx(float(total) / (items / 2), rel=1e-4)


# ---- another loss ----


@pytest.mark.parametrize("mu", [None, 3.0])
@pytest.mark.parametrize("form", ["tanh", "log"])
def test_bisam_by_its_formula(form, mu):
    generator = torch.Generator().manual_seed(0)
    logits = 5 * torch.randn(6, 4, generator=generator, dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    values = BiSAM(BiSAMOptions(form=form, mu=mu))(logits, labels)
    used = mu or (10 if form == "tanh" else 1)
    for z, y, value in zip(logits.tolist(), labels.tolist(), values.tolist(), strict=True):
        margins = [one - z[y] for one in z]
        if form == "tanh":
            bounds = [math.tanh(0.1 * margin) for margin in margins]
        else:
            bounds = [1 - math.log(1 + (math.e - 1) * math.exp(-margin)) for margin in margins]
        expected = math.log(sum(math.exp(used * bound) for bound in bounds)) / used
        assert value == pytest.approx(expected, rel=1e-12)


def test_the_log_form_is_finite_far_from_the_border():
    logits = torch.tensor([[0.0, -2e4], [-2e4, 0.0]], requires_grad=True)
    values = BiSAM(BiSAMOptions(form="log"))(logits, torch.tensor([0, 0]))
    values.sum().backward()
    assert values.isfinite().all()
    assert logits.grad.isfinite().all()


class Logits(nn.Module):
    """(2, 5, 7) logits, of a language model or not."""

    def __init__(self):
        super().__init__()
        self.z = nn.Parameter(torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64))


class GPT2LMHeadModel(Logits):
    """By its name a causal one of the host."""


@pytest.mark.parametrize("items", [None, 20])
@pytest.mark.parametrize("cls", [Logits, GPT2LMHeadModel])
def test_each_token_with_a_label_is_an_example_and_the_value_stays_that_of_the_loss(cls, items):
    model, labels = cls(), torch.tensor([[1, 2, -100, 4, 5], [0, -100, -100, 3, -100]])
    shift = cls is GPT2LMHeadModel

    def compute_loss(model, inputs, return_outputs=False, num_items_in_batch=None):
        inputs.pop("labels")
        return model.z.square().sum(), {"logits": model.z}

    ascent = AscentPass(BiSAM(BiSAMOptions()))
    with ascent.active():
        loss = ascent.compute(compute_loss, True, model, {"labels": labels}, num_items_in_batch=items)
    assert float(loss.detach()) == pytest.approx(float(model.z.square().sum()))
    loss.backward()
    z = model.z.detach().clone().requires_grad_()
    pairs = [(0, 0), (0, 1), (0, 3), (0, 4), (1, 0), (1, 3)]
    rows = [z[b, t - shift] for b, t in pairs if t - shift >= 0]
    targets = [int(labels[b, t]) for b, t in pairs if t - shift >= 0]
    total = sum(
        torch.logsumexp(10 * torch.tanh(0.1 * (row - row[y])), 0) / 10 for row, y in zip(rows, targets, strict=True)
    )
    (total / (items or len(rows))).backward()
    assert torch.allclose(model.z.grad, z.grad, rtol=1e-12, atol=1e-15)
    # Outside of an ascent pass, the host's own.
    assert ascent.compute(lambda *_, **__: "the host's", True, model, {"labels": labels}) == "the host's"


def test_the_logged_loss_stays_that_of_training(tmp_path):
    config = {"ascent_loss": "bisam", "rho": 0.0}
    ours = harness.train(harness.Run(config=config), tmp_path)
    plain = harness.train(harness.Run(config={"rho": 0.0}), tmp_path)
    assert harness.same_bits(ours["weights"], plain["weights"])
    for left, right in zip(ours["log"], plain["log"], strict=True):
        assert left.get("loss") == right.get("loss")
        if "loss" in left:
            assert left["sam/ascent_grad_norm"] != right["sam/ascent_grad_norm"]


@pytest.mark.parametrize("labels", [torch.randn(2, 5, 7), torch.zeros(2, 5), torch.zeros(2, dtype=torch.long), None])
def test_labels_that_are_no_classes_are_refused(labels):
    model, ascent = Logits(), AscentPass(BiSAM(BiSAMOptions()))

    def compute_loss(model, inputs, **kwargs):
        return model.z.sum(), {"logits": model.z}

    with ascent.active(), pytest.raises(ValueError, match=r"ascent_loss of BiSAM .*leave it at 'training'"):
        ascent.compute(compute_loss, False, model, {"labels": labels})


def test_regression_is_refused_at_construction(tmp_path):
    trainer = harness.make_trainer(harness.Run(), tmp_path)
    for model in (setups.classifier(labels=1), setups.classifier()):
        if model.config.num_labels > 1:
            model.config.problem_type = "multi_label_classification"
        trainer.model = model
        validation.check_compatibility(trainer, SAMConfig())
        with pytest.raises(
            ValueError, match=r"ascent_loss='bisam' cannot be combined with (num_labels=1|problem_type)"
        ):
            validation.check_compatibility(trainer, SAMConfig(ascent_loss="bisam"))


# ---- what is refused ----

REFUSED = [
    ({"method": "sampa", "ascent_fraction": 0.5}, "ascent_fraction=0.5 cannot be combined with method='sampa'"),
    ({"method": "gsam", "ascent_fraction": 0.5}, "ascent_fraction=0.5 cannot be combined with method='gsam'"),
    ({"method": "sampa", "ascent_loss": "bisam"}, "ascent_loss='bisam' cannot be combined with method='sampa'"),
    ({"perturbation": "random", "ascent_fraction": 0.5}, "ascent_fraction=0.5 cannot be .*perturbation='random'"),
    ({"perturbation": "momentum", "ascent_loss": "bisam"}, "ascent_loss='bisam' cannot be .*perturbation='momentum'"),
    ({"method": "sampa", "probability": 0.5}, "method='sampa' cannot be combined with probability=0.5"),
    ({"method": "stale", "every": 2}, "method='stale' cannot be combined with every=2"),
    ({"perturbation": "vasso", "ascent_scope": "micro_batch"}, "perturbation='vasso' cannot be .*micro_batch"),
    ({"perturbation": "friendly", "ascent_scope": "micro_batch"}, "perturbation='friendly' cannot be .*micro_batch"),
    ({"method": "other_batch", "ascent_scope": "micro_batch"}, "method='other_batch' cannot be .*micro_batch"),
    *(
        ({"method": method, "perturbation": name}, f"method='{method}' cannot be combined with perturbation='{name}'")
        for method in ("sampa", "stale", "other_batch", "random_smoothing", "gsam")
        for name in ("momentum", "random", "previous")
    ),
]


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
    return harness.make_trainer(harness.Run(), tmp_path_factory.mktemp("refused"))


@pytest.mark.parametrize(("config", "message"), REFUSED)
def test_refused_at_construction(config, message, trainer):
    with pytest.raises(ValueError, match=message):
        validation.check_compatibility(trainer, SAMConfig(**config))


def test_momentum_needs_an_optimizer_that_has_one(tmp_path):
    config = {"perturbation": "momentum"}
    with pytest.raises(ValueError, match="perturbation='momentum' cannot be combined with optim='sgd'"):
        harness.make_trainer(harness.Run(config=config, arguments={"optim": "sgd"}), tmp_path)


@pytest.mark.parametrize("method", ["sampa", "stale"])
def test_pairs_that_ascend_by_themselves_do_not_accumulate(method, tmp_path):
    config, arguments = {"ascent_scope": "micro_batch"}, {"gradient_accumulation_steps": 2}
    with pytest.raises(ValueError, match=f"method='{method}' with gradient accumulation .*micro_batch"):
        harness.make_trainer(harness.Run(method=method, config=config, arguments=arguments), tmp_path)


# ---- pairs that ascend along their own data ----


def of_pairs(w, stream, method, after_the_last, lam=0.1):
    """SAMPa or stale SAM with one perturbation for each shard, and the mean for all else."""
    adam = reference.Adam(w, len(stream))
    lam = lam if method == "sampa" else 0.0
    own = [reference.rank_gradient(w, part) for part in stream[0]]
    for window, upcoming in zip(stream, [*stream[1:], after_the_last], strict=True):
        points = [reference.perturbed(w, h, ascents.RHO) for h in own]
        p = reference.mean([reference.rank_gradient(x, part) for x, part in zip(points, window, strict=True)])
        if upcoming is None:
            return adam.step(w, p)
        y, ahead = (adam.moved(w, reference.mean(own))[0], upcoming) if method == "sampa" else (w, window)
        own = [reference.rank_gradient(y, part) for part in ahead]
        h = reference.mean(own)
        w = adam.step(w, {name: (1 - lam) * p[name] + lam * h[name] for name in w})
    return w


@pytest.fixture(scope="module")
def on_four(tmp_path_factory):
    folder = tmp_path_factory.mktemp("four")
    config = {"rho": ascents.RHO, "ascent_scope": "micro_batch"}
    arguments = {"save_strategy": "steps", "save_steps": 7, "num_train_epochs": 4}
    runs = {}
    for method in ("sampa", "stale"):
        options = {"method": method, "config": config, "examples": 40, "arguments": arguments}
        runs[method] = harness.Run(**options)
        checkpoint = str(folder / method / "checkpoint-7")
        runs[f"{method} resumed"] = harness.Run(**options, resume_from=checkpoint)
        runs[f"{method} overflow"] = harness.Run(
            method=method,
            config=config,
            examples=40,
            loss_scale=2.0**10,
            model={"explode_at": [5], "explode_on_rank": 3},
        )
    results = launch(4, runs, folder)
    ending = harness.Run(method="sampa", config=config, examples=72, iterable=True, arguments={"max_steps": 9})
    (folder / "ending").mkdir()
    ended = launch(4, {"ending": ending}, folder / "ending", module="tests.perturbations.ends")
    return folder, runs, results | ended


@pytest.mark.parametrize("method", ["sampa", "stale"])
def test_pairs_ascend_along_their_own_data(method, on_four, tmp_path):
    folder, _, results = on_four
    stream = reference.windows_of(harness.make_dataset(40), 4, 2, 1, batch_size=4)
    start = harness.make_trainer(harness.Run(), tmp_path)
    reference.divide_as(start)
    expected = of_pairs(harness.weights_of(start.model), stream, method, stream[0])
    first = results[method][0]
    assert harness.largest_difference(first["weights"], expected) < 1e-10
    assert first["state"]["global_step"] == len(stream) == 20
    for whole, resumed in zip(results[method], results[f"{method} resumed"], strict=True):
        assert whole["trace"].hashes == first["trace"].hashes
        assert resumed["trace"].hashes == first["trace"].hashes[7:]
    names = [path.name for path in sorted((folder / method / "checkpoint-7").glob("sam_state*"))]
    assert names == [f"sam_state_{rank}.safetensors" for rank in range(4)]


@pytest.mark.parametrize("method", ["sampa", "stale"])
def test_all_pairs_begin_again_when_the_gradient_of_one_is_infinite(method, on_four):
    first, *others = on_four[2][f"{method} overflow"]
    for other in others:
        assert other["trace"].hashes == first["trace"].hashes
    skipped = [
        harness.same_bits(a, b) for a, b in zip(first["trace"].weights, first["trace"].weights[1:], strict=False)
    ]
    assert sum(skipped[:-1]) == 1
    assert all(value.isfinite().all() for value in first["weights"].values())


def test_the_last_update_of_a_stream_that_ends_is_perturbed_by_pair_on_all_ranks(on_four, tmp_path):
    results = on_four[2]["ending"]
    start = harness.weights_of(harness.make_trainer(harness.Run(), tmp_path).model)
    stream = reference.windows_of(harness.make_dataset(72), 1, 2, 1, batch_size=4)
    expected = of_pairs(start, stream, "sampa", None)
    for result in results:
        assert result["step"] == 9
        assert harness.largest_difference(result["weights"], expected) < 1e-10


# ---- a state for each rank ----


def test_on_another_number_of_ranks_all_go_on_from_the_mean(tmp_path, caplog):
    for rank, value in enumerate((1.0, 2.0, 6.0)):
        save_state({"a": torch.full((2,), value), f"only {rank}": torch.tensor([3.0])}, str(tmp_path), rank, 3, True)
    assert load_state(str(tmp_path), 1, 3, of_rank=True)["a"].tolist() == [2.0, 2.0]
    assert not caplog.records
    with caplog.at_level(logging.WARNING, logger="hf_sam"):
        states = [load_state(str(tmp_path), 1, 2, True), load_state(str(tmp_path), 0, 3, False)]
    assert "a state for each of 3 ranks" in caplog.text
    for state in states:
        assert state["a"].tolist() == [3.0, 3.0]
        assert state["only 2"].tolist() == [1.0]


def test_the_state_of_a_rank_that_is_missing_is_named(tmp_path):
    for rank in (0, 1):
        save_state({"a": torch.ones(1)}, str(tmp_path), rank, 2, True)
    (tmp_path / "sam_state_1.safetensors").unlink()
    assert load_state(str(tmp_path), 0, 2, True)["a"].tolist() == [1.0]
    for rank, ranks in ((1, 2), (0, 1)):
        with pytest.raises(ValueError, match=r"sam_state_1\.safetensors is missing: it was saved by 2 ranks"):
            load_state(str(tmp_path), rank, ranks, ranks == 2)


def test_one_state_for_all_and_none(tmp_path):
    assert load_state(str(tmp_path), 0, 1, False) == {}
    save_state({}, str(tmp_path), 0, 1, False)
    assert list(tmp_path.iterdir()) == []
    save_state({"a": torch.ones(1)}, str(tmp_path / "new"), 0, 4, False)
    assert load_state(str(tmp_path / "new"), 3, 4, True)["a"].tolist() == [1.0]


@pytest.mark.parametrize("name", ["vasso", "previous"])
def test_a_state_of_another_model_is_refused(name, tmp_path):
    trainer = harness.make_trainer(harness.Run(config={"perturbation": name}), tmp_path)
    weights = dict(trainer.model.named_parameters())
    with pytest.raises(ValueError, match=r"The checkpoint holds .* for 'inner.weight' \(shape \(1,\)\)"):
        trainer.sam_method.load_state_dict({"perturbation/inner.weight": torch.zeros(1)}, weights)
