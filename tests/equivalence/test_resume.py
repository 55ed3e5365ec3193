"""A run that was interrupted and resumed equals the uninterrupted one, bit for bit; stock checkpoints go both ways."""

import json
import logging
from functools import cache

import pytest
import torch
from transformers import Trainer, TrainingArguments, ViTConfig, ViTForImageClassification

from hf_sam import SAMConfig, SAMTrainer
from tests import harness


UPDATES_PER_EPOCH = 11
METHODS = {
    "sam": {},
    "sampa": {"method": "sampa"},
    "sampa with lambda 0": {"method": "sampa", "config": {"sampa_lambda": 0.0}},
    "sampa with accumulation": {
        "method": "sampa",
        "arguments": {"gradient_accumulation_steps": 3, "num_train_epochs": 6},
    },
}


def make_run(name: str, **options) -> harness.Run:
    values = {"model": {"dropout": 0.3}, "examples": 44} | METHODS[name] | options
    values["arguments"] = {
        "save_strategy": "steps",
        "save_steps": 1,
        "num_train_epochs": 3,
        "train_sampling_strategy": "random",
    } | values.get("arguments", {})
    return harness.Run(**values)


@pytest.fixture(scope="module")
def train_whole(tmp_path_factory):
    """`train_whole(name)` trains without a stop, once."""
    return cache(lambda name: harness.train(make_run(name), tmp_path_factory.mktemp("whole")))


@pytest.mark.parametrize("stop", [5, 8, UPDATES_PER_EPOCH, 20])
@pytest.mark.parametrize("name", METHODS)
def test_resumed_equals_uninterrupted(name, stop, train_whole, tmp_path):
    """In the middle and at the end of an epoch (11 updates each, 4 with accumulation)."""
    whole = train_whole(name)
    harness.train(make_run(name, stop_after=stop), tmp_path / "cut")
    resumed = harness.train(make_run(name, resume_from=str(tmp_path / f"cut/checkpoint-{stop}")), tmp_path / "cut")
    assert resumed["state"]["global_step"] == whole["state"]["global_step"]
    assert harness.same_bits(resumed["weights"], whole["weights"])
    assert harness.same_bits(resumed["optimizer"], whole["optimizer"])
    assert torch.equal(resumed["rng"], whole["rng"])


def test_without_the_lookahead_gradient_a_resumed_run_would_differ(tmp_path):
    whole = harness.train(make_run("sampa"), tmp_path / "whole")
    checkpoint = tmp_path / "whole/checkpoint-5"
    # As if the stock Trainer had written it: else the missing file would be an error.
    for name in ("sam_state.safetensors", "sam_config.json", "sam_manifest.json"):
        (checkpoint / name).unlink()
    resumed = harness.train(make_run("sampa", resume_from=str(checkpoint)), tmp_path / "again")
    assert harness.largest_difference(resumed["weights"], whole["weights"]) > 1e-9


def test_the_stock_trainer_continues_a_sampa_checkpoint_and_the_other_way_round(tmp_path):
    harness.train(make_run("sampa"), tmp_path / "sampa")
    by_stock = harness.train(
        make_run("sampa", trainer="stock", resume_from=str(tmp_path / "sampa/checkpoint-20")), tmp_path / "stock"
    )
    assert by_stock["state"]["global_step"] == 3 * UPDATES_PER_EPOCH
    # Its optimizer went on from the checkpoint, not from nothing.
    assert float(by_stock["optimizer"]["0.step"]) == 3 * UPDATES_PER_EPOCH

    harness.train(make_run("sam", trainer="stock"), tmp_path / "first")
    for name in ("sam", "sampa"):
        by_ours = harness.train(make_run(name, resume_from=str(tmp_path / "first/checkpoint-20")), tmp_path / name)
        assert float(by_ours["optimizer"]["0.step"]) == 3 * UPDATES_PER_EPOCH


def test_options_are_written_to_every_checkpoint_and_a_change_is_warned_of(tmp_path, caplog):
    run = make_run("sampa", config={"sampa_lambda": 0.2}, stop_after=2)
    trainer = harness.make_trainer(run, tmp_path)
    trainer.train()
    trainer.save_model()
    for folder in (tmp_path, tmp_path / "checkpoint-1", tmp_path / "checkpoint-2"):
        options = json.loads((folder / "sam_config.json").read_text())
        assert (options["method"], options["sampa_lambda"]) == ("sampa", 0.2)
        assert (folder / "training_args.bin").is_file()

    changed = make_run("sam", resume_from=str(tmp_path / "checkpoint-2"))
    with caplog.at_level(logging.WARNING, logger="hf_sam"):
        harness.train(changed, tmp_path / "again")
    assert "method='sam'" in caplog.text
    assert "'sampa'" in caplog.text
    assert "sampa_lambda=0.1" in caplog.text
    assert "0.2" in caplog.text


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    harness.train(make_run("sampa"), tmp_path / "first")
    trainer = harness.make_trainer(make_run("sampa"), tmp_path / "second")
    assert isinstance(trainer, Trainer)
    with pytest.raises(ValueError, match="lookahead gradient"):
        trainer.sam_method.load_state_dict({"inner.weight": torch.zeros(1)}, dict(trainer.model.named_parameters()))


def vit_trainer(folder, **arguments) -> SAMTrainer:
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 8}
    model = ViTForImageClassification(ViTConfig(**sizes, image_size=8, patch_size=4, num_labels=3))
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(24, 3, 8, 8, generator=generator)
    data = [{"pixel_values": image, "labels": i % 3} for i, image in enumerate(pixels)]
    defaults = {"per_device_train_batch_size": 4, "learning_rate": 1e-2, "num_train_epochs": 2, "save_steps": 4}
    args = TrainingArguments(folder, save_strategy="steps", report_to=[], use_cpu=True, **defaults | arguments)
    return SAMTrainer(model, args, train_dataset=data, eval_dataset=data, sam_config=SAMConfig(rho=0.1))


def test_a_vit_resumes_whatever_names_its_checkpoint_gives_to_the_weights(tmp_path, caplog):
    """The host resumes such a model without its encoder."""
    whole = vit_trainer(tmp_path / "whole")
    whole.train()
    resumed = vit_trainer(tmp_path / "resumed")
    with caplog.at_level(logging.WARNING):
        resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-4"))
    assert harness.same_bits(resumed.model.state_dict(), whole.model.state_dict())
    assert "missing keys" not in caplog.text


def test_the_best_vit_is_loaded_whatever_names_its_checkpoint_gives_to_the_weights(tmp_path):
    # The loss falls from checkpoint to checkpoint: the best of them shall be the one with the highest, the first.
    trainer = vit_trainer(
        tmp_path,
        eval_strategy="steps",
        eval_steps=4,
        load_best_model_at_end=True,
        metric_for_best_model="loss",
        greater_is_better=True,
    )
    trainer.train()
    best = trainer.state.best_model_checkpoint
    assert not best.endswith("checkpoint-12")
    saved = ViTForImageClassification.from_pretrained(best)
    assert harness.same_bits(trainer.model.state_dict(), saved.state_dict())
