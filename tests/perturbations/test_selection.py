"""Which weights are perturbed: by the class of their layer and by name, in models as they are."""

import re

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoModel

from hf_sam import SAMConfig
from hf_sam.selection import matches, normalization_weights
from tests import harness
from tests.host import setups
from tests.perturbations.cases import CASES


SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
LLAMA = SMALL | {"num_key_value_heads": 2, "vocab_size": 32}
MODELS = {
    "Bert": (SMALL, r"LayerNorm"),
    "Roberta": (SMALL, r"LayerNorm"),
    "DebertaV2": (SMALL, r"LayerNorm"),
    "DistilBert": ({"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32}, r"LayerNorm|layer_norm"),
    "GPT2": ({"n_embd": 16, "n_layer": 2, "n_head": 2}, r"ln_"),
    "Llama": (LLAMA, r"norm"),
    "Qwen3": (LLAMA | {"head_dim": 8}, r"norm"),
    "T5": ({"d_model": 16, "num_layers": 2, "num_heads": 2, "d_kv": 8, "d_ff": 32}, r"layer_norm"),
    "ViT": (SMALL, r"layernorm"),
    "ResNet": ({"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}, r"normalization"),
    "ConvNext": ({"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2}, r"norm|downsampling_layer\.0"),
}


@pytest.mark.parametrize("name", MODELS)
def test_normalisation_layers_are_found(name):
    options, pattern = MODELS[name]
    with torch.device("meta"):
        model = AutoModel.from_config(getattr(transformers, f"{name}Config")(**options))
    found = set(normalization_weights(model))
    expected = {key for key, _ in model.named_parameters() if re.search(pattern, key)}
    assert {key for key, weight in model.named_parameters() if weight in found} == expected
    assert len(expected) >= 5


def test_a_wrapper_that_is_called_norm_is_no_normalisation_layer():
    class PreNorm(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.inner = nn.GroupNorm(2, 4), nn.Linear(4, 4)

    layers = nn.ModuleList([PreNorm(), nn.SyncBatchNorm(3), nn.InstanceNorm2d(3, affine=True)])
    assert len(normalization_weights(layers)) == 6


@pytest.mark.parametrize(
    ("name", "patterns", "expected"),
    [
        ("bert.encoder.layer.1.output.dense.weight", ["bert.encoder.layer.1"], True),
        ("bert.encoder.layer.11.output.dense.weight", ["bert.encoder.layer.1"], False),
        ("bert.encoder.layer.1.output.dense.weight", ["*.dense"], True),
        ("bert.encoder.layer.1.output.dense.weight", ["dense"], False),
        ("bert.encoder.layer.1.output.dense.weight", ["*weight", "!*.output"], False),
        ("bert.encoder.layer.1.output.dense.bias", ["!*bias"], False),
        ("bert.encoder.layer.1.output.dense.weight", ["!*bias"], True),
        ("classifier.weight", ["classifier.[wb]*"], True),
        ("Classifier.weight", ["classifier"], False),
    ],
)
def test_patterns(name, patterns, expected):
    assert matches(name, patterns) is expected


def chosen(model, tmp_path, **config):
    options = {"data_collator": setups.collate_for_classification}
    trainer = setups.make_trainer(model, setups.sentences(16), tmp_path, SAMConfig(rho=0.1, **config), **options)
    return set(trainer.sam_method._selection.of(trainer.model.parameters()).values())


@pytest.mark.parametrize("patterns", [["*wte*"], ["*lm_head*"]])
def test_a_tied_weight_is_meant_by_each_of_its_names(patterns, tmp_path):
    model = setups.causal_lm()
    names = chosen(model, tmp_path, perturb_modules=patterns)
    assert names == {"transformer.wte.weight"}
    names = chosen(model, tmp_path, perturb_modules=["!*lm_head*"])
    assert "transformer.wte.weight" not in names
    assert len(names) == len(list(model.parameters())) - 1


def test_nothing_to_perturb_is_an_error_before_training(tmp_path):
    model = setups.classifier()
    with pytest.raises(ValueError, match=r"perturb_modules=\['encoder\.\*'\].*no trainable.*'bert\.embeddings\.word"):
        chosen(model, tmp_path, perturb_modules=["encoder.*"])
    with pytest.raises(ValueError, match=r"perturbation='sam_on'.*no trainable weight of a normalisation layer"):
        chosen(model, tmp_path, perturbation="sam_on", perturb_modules=["*.dense"])
    lora = get_peft_model(setups.classifier(), LoraConfig(target_modules=["query"], r=2))
    with pytest.raises(ValueError, match=r"perturbation='sam_on'.*LoRA freeze them.*lora_A"):
        chosen(lora, tmp_path, perturbation="sam_on")
    names = chosen(lora, tmp_path, perturbation="sam_on", perturbation_args={"no_norm": True})
    assert any("lora_B" in name for name in names)


def test_what_cannot_work_is_refused(tmp_path):
    for perturbation, arguments, model, message in [
        ("preconditioned", {"optim": "sgd"}, {}, r"perturbation='preconditioned'.*optim='sgd'.*second moment"),
        ("sparse", {}, {"batch_norm": True}, r"perturbation='sparse'.*BatchNorm.*'form': 'dynamic'"),
    ]:
        run = harness.Run(config={"perturbation": perturbation}, arguments=arguments, model=model)
        with pytest.raises(ValueError, match=message):
            harness.make_trainer(run, tmp_path)


@pytest.mark.parametrize("method", ["sam", "sampa"])
def test_all_names_are_the_bits_of_sam_and_some_need_less_memory(method, monkeypatch, tmp_path):
    run = CASES["gradient"].run(method)
    plain = harness.train(run, tmp_path)
    run.config["perturb_modules"] = ["*"]
    assert harness.same_bits(harness.train(run, tmp_path)["weights"], plain["weights"])
    copied = []
    monkeypatch.setattr(
        "hf_sam.methods.base.preserved_weights",
        lambda weights: copied.append(len(weights)) or torch.autograd.profiler.record_function("none"),
    )
    run.config["perturb_modules"] = ["outer"]
    harness.make_trainer(run, tmp_path).train()
    assert set(copied) == {2}


ADAPTED = [name for name in CASES if not name.startswith("sam_on") and "perturb_modules" not in CASES[name].config]


@pytest.mark.parametrize("name", [*ADAPTED, "sam_on without norms"])
def test_adapters_are_perturbed_also_where_they_begin_at_zero(name, monkeypatch, tmp_path):
    """LoRA's B is 0 at first and has the only gradient then."""
    model = get_peft_model(setups.classifier(), LoraConfig(target_modules=["query"], r=2, task_type="SEQ_CLS"))
    frozen = {key: value.clone() for key, value in model.named_parameters() if not value.requires_grad}
    weights = {key: value for key, value in model.named_parameters() if "lora_B" in key}
    moved, original = [], model.forward

    def forward(*args, **kwargs):
        moved.append(any(bool(weight.any()) for weight in weights.values()))
        return original(*args, **kwargs)

    monkeypatch.setattr(model, "forward", forward)
    # A tenth of all need not have any of B.
    args = CASES[name].args | ({"keep": 0.9} if "keep" in CASES[name].args else {})
    config = SAMConfig(rho=0.1, perturbation=CASES[name].perturbation, perturbation_args=args)
    options = {"data_collator": setups.collate_for_classification, "arguments": {"max_steps": 2}}
    trainer = setups.make_trainer(model, setups.sentences(16), tmp_path, config, **options)
    trainer.train()
    # The pass at w, those of single rows, and then the one at w + ε.
    assert moved[: 2 + CASES[name].rows] == [False] * (1 + CASES[name].rows) + [True]
    assert all(torch.equal(value, frozen[key]) for key, value in model.named_parameters() if key in frozen)
