"""A method and a perturbation from outside of the package: one class and one registration each, and all else works."""

import math

import pytest
import torch
from huggingface_hub import ModelCard

from hf_sam import SAMConfig, validation
from tests import harness, reference
from tests.distributed.launch import launch
from tests.equivalence.test_reference import start, windows
from tests.host import setups
from tests.house import outside


RHO, MOMENTUM, SHARE = 0.3, 0.5, 0.25
OUTSIDE = {
    "halfway": {"method": "halfway", "config": {"method_args": {"share": SHARE}}},
    "smoothed sign": {"method": "sam", "config": {"perturbation": "smoothed_sign"}},
    "both": {
        "method": "halfway",
        "config": {
            "method_args": {"share": SHARE},
            "perturbation": "smoothed_sign",
            "perturbation_args": {"momentum": MOMENTUM},
        },
    },
    "smoothed sign in SAMPa": {"method": "sampa", "config": {"perturbation": "smoothed_sign"}},
}


def make_run(name, **options):
    run = OUTSIDE[name]
    return harness.Run(method=run["method"], config={"rho": RHO} | run["config"], **options)


class SignReference:
    """The displacement of `smoothed_sign` once more, by name of the weight."""

    def __init__(self):
        self.average = None

    def perturbed(self, w, a):
        old = self.average or {name: torch.zeros_like(value) for name, value in a.items()}
        self.average = {name: MOMENTUM * old[name] + (1 - MOMENTUM) * a[name].sign() for name in a}
        length = RHO / math.sqrt(sum(value.numel() for value in w.values()))
        return {name: w[name] + length * self.average[name] for name in w}


def expected_weights(name, w, stream):
    adam, sign = reference.Adam(w, len(stream)), SignReference()
    share = SHARE if OUTSIDE[name]["method"] == "halfway" else 1.0
    if OUTSIDE[name]["method"] == "sampa":
        h = reference.window_gradient(w, stream[0])
    for window, upcoming in zip(stream, [*stream[1:], stream[0]], strict=True):
        a = h if OUTSIDE[name]["method"] == "sampa" else reference.window_gradient(w, window)
        moved = reference.perturbed(w, a, RHO) if name == "halfway" else sign.perturbed(w, a)
        d = reference.window_gradient(moved, window)
        if OUTSIDE[name]["method"] == "sampa":
            h = reference.window_gradient(adam.moved(w, a)[0], upcoming)
            d = {key: 0.9 * d[key] + 0.1 * h[key] for key in d}
        else:
            d = {key: (1 - share) * a[key] + share * d[key] for key in d}
        w = adam.step(w, d)
    return w


@pytest.mark.parametrize("name", OUTSIDE)
def test_equals_a_reference_over_20_updates(name, tmp_path):
    run = make_run(name, arguments={"gradient_accumulation_steps": 2, "num_train_epochs": 4})
    result = harness.train(run, tmp_path)
    stream = windows(run, epochs=4, accumulation=2)
    assert result["state"]["global_step"] == len(stream) >= 20
    assert harness.largest_difference(result["weights"], expected_weights(name, start(run, tmp_path), stream)) < 1e-10


@pytest.mark.parametrize("name", OUTSIDE)
def test_resumed_equals_uninterrupted(name, tmp_path):
    saved = {"save_strategy": "steps", "save_steps": 8, "train_sampling_strategy": "random"}
    options = {"arguments": saved, "model": {"dropout": 0.3}}
    whole = harness.train(make_run(name, **options), tmp_path)
    resumed = harness.train(make_run(name, resume_from=str(tmp_path / "checkpoint-8"), **options), tmp_path / "again")
    assert resumed["state"]["global_step"] == whole["state"]["global_step"] == 22
    assert harness.same_bits(resumed["weights"], whole["weights"])
    assert harness.same_bits(resumed["optimizer"], whole["optimizer"])


def test_replicas_are_equal_on_two_ranks(tmp_path):
    runs = {name: make_run(name, examples=40) for name in OUTSIDE}
    for name, ranks in launch(2, runs, tmp_path, module="tests.house.ranks").items():
        assert ranks[0]["trace"].hashes == ranks[1]["trace"].hashes, name
        assert ranks[0]["state"]["global_step"] == (20 if "SAMPa" in name else 10)


def test_the_card_tells_of_both(tmp_path):
    config = SAMConfig(**OUTSIDE["both"]["config"], method="halfway", start=1)
    options = {"data_collator": setups.collate_for_classification}
    trainer = setups.make_trainer(setups.classifier(), setups.sentences(16), tmp_path, config, **options)
    trainer.train()
    trainer.create_model_card()
    card = ModelCard.load(tmp_path / "README.md")
    assert {"hf_sam", "halfway"} <= set(card.data.tags)
    for said in (outside.Halfway.description, outside.SmoothedSign.description):
        assert said.story in card.text
        assert said.citations[0] in card.text
    assert "| share | 0.25 |" in card.text
    assert "| first update that perturbs | 1.0 |" in card.text
    assert "| Perturbation | along a moving average of the signs |" in card.text
    assert "| Gradient computations per update | 2, one after the other |" in card.text


def test_what_it_refuses_is_refused_by_its_name(tmp_path):
    trainer = harness.make_trainer(make_run("smoothed sign"), tmp_path)
    config = SAMConfig(perturbation="smoothed_sign", ascent_scope="micro_batch")
    with pytest.raises(ValueError, match=r"perturbation='smoothed_sign' cannot be combined with ascent_scope='micro"):
        validation.check_compatibility(trainer, config)


def test_its_options_are_written_and_read_back(tmp_path):
    config = SAMConfig("halfway", method_args={"share": SHARE}, perturbation="smoothed_sign")
    config.save_pretrained(tmp_path)
    assert SAMConfig.from_pretrained(tmp_path) == config
    assert SAMConfig.from_pretrained(tmp_path).method_options == outside.HalfwayOptions(SHARE)
