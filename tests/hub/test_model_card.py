"""The model card tells the truth about a run, in words for a visitor and in metadata that the Hub accepts."""

import re

import numpy as np
import pytest
import torch
from huggingface_hub import EvalResult, ModelCard, metadata_load
from tokenizers import Tokenizer, models
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PreTrainedTokenizerFast,
    TrainingArguments,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)

from hf_sam import SAMConfig, SAMTrainer
from hf_sam.hub.model_card import MAX_LOG_ROWS, describe_data, non_default_arguments

from .card_rules import card_problems


SIZE = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


def train(model, dataset, processor, output_dir, config: SAMConfig, **arguments) -> SAMTrainer:
    args = TrainingArguments(
        output_dir=str(output_dir),
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        max_steps=2,
        logging_steps=1,
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="no",
        use_cpu=True,
        report_to=[],
        **arguments,
    )

    def accuracy(prediction):
        return {"accuracy": float(np.mean(prediction.predictions.argmax(-1) == prediction.label_ids))}

    trainer = SAMTrainer(
        model,
        args,
        train_dataset=dataset,
        eval_dataset=dataset,
        processing_class=processor,
        compute_metrics=accuracy,
        sam_config=config,
    )
    trainer.train()
    return trainer


@pytest.fixture(scope="module")
def glue(tmp_path_factory):
    """A run on sentences with SAM and one perturbation per micro-batch."""
    words = Tokenizer(models.WordLevel({"w0": 0, "w1": 1}, unk_token="w0"))
    ids = torch.randint(2, (16, 5))
    dataset = [{"input_ids": row, "labels": int(row[0])} for row in ids]
    trainer = train(
        BertForSequenceClassification(BertConfig(vocab_size=2, num_labels=2, **SIZE)),
        dataset,
        PreTrainedTokenizerFast(tokenizer_object=words, pad_token="w0"),
        tmp_path_factory.mktemp("glue") / "sst2-sam",
        SAMConfig(method="sam", rho=0.03, ascent_scope="micro_batch"),
        learning_rate=3e-3,
    )
    tags = ["of-the-user", "sam"]
    dataset = {"dataset_tags": "nyu-mll/glue", "dataset_args": "sst2", "dataset": "GLUE SST-2"}
    trainer.create_model_card(language="en", license="apache-2.0", tags=tags, tasks="text-classification", **dataset)
    assert tags == ["of-the-user", "sam"], "the user's list was changed"
    return trainer


@pytest.fixture(scope="module")
def cifar(tmp_path_factory):
    """A run on images with SAMPa."""
    generator = torch.Generator().manual_seed(0)
    dataset = [{"pixel_values": torch.rand(3, 8, 8, generator=generator), "labels": i % 2} for i in range(16)]
    try:
        processor = ViTImageProcessor(size={"height": 8, "width": 8})
    except ImportError as error:
        pytest.skip(f"older versions of transformers need more for images: {error}")
    trainer = train(
        ViTForImageClassification(ViTConfig(image_size=8, patch_size=4, num_labels=2, **SIZE)),
        dataset,
        processor,
        tmp_path_factory.mktemp("cifar") / "vit-cifar10",
        SAMConfig(method="sampa", rho=0.1, sampa_lambda=0.3),
    )
    trainer.create_model_card(dataset_tags="uoft-cs/cifar10", dataset="CIFAR-10")
    return trainer


def card_of(trainer: SAMTrainer) -> ModelCard:
    return ModelCard.load(f"{trainer.args.output_dir}/README.md")


def table_of(card: ModelCard, heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its header."""
    lines = card.text.split(f"{heading}\n", 1)[1].splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("|"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


@pytest.mark.parametrize("run", ["glue", "cifar"])
def test_front_matter_is_what_the_hub_asks_for(run, request):
    trainer = request.getfixturevalue(run)
    path = f"{trainer.args.output_dir}/README.md"
    with open(path, encoding="utf-8") as file:
        assert card_problems(file.read()) == ([], [])
    tags = {"glue": ["of-the-user", "sam", "hf_sam", "generated_from_trainer"]}
    assert metadata_load(path)["tags"] == tags.get(run, ["hf_sam", "sampa", "generated_from_trainer"])


def test_results_are_those_of_the_last_evaluation(glue, cifar):
    (sentences,) = card_of(glue).data.eval_results
    expected = EvalResult(
        task_type="text-classification",
        task_name="Text Classification",
        dataset_type="nyu-mll/glue",
        dataset_name="GLUE SST-2",
        dataset_config="sst2",
        dataset_args="sst2",
        metric_type="accuracy",
        metric_name="Accuracy",
        metric_value=glue.state.log_history[-2]["eval_accuracy"],
    )
    assert sentences == expected
    (images,) = card_of(cifar).data.eval_results
    assert (images.task_type, images.dataset_type) == ("image-classification", "uoft-cs/cifar10")
    assert images.metric_value == cifar.state.log_history[-2]["eval_accuracy"]


def test_options_and_accounting_are_told(glue, cifar):
    assert table_of(card_of(glue), "## Sharpness-aware training") == [
        ["Method", "SAM"],
        ["rho (radius of the perturbation)", "0.03"],
        ["ascent_scope", "micro_batch (each micro-batch has a perturbation of its own)"],
        ["same_dropout_mask", "True"],
        ["World size", "1"],
        ["Total train batch size", "8"],
        ["Gradient computations per update", "2, one after the other"],
    ]
    assert table_of(card_of(cifar), "## Sharpness-aware training") == [
        ["Method", "SAMPa"],
        ["rho (radius of the perturbation)", "0.1"],
        ["lambda (weight of the lookahead gradient)", "0.3"],
        ["lookahead", "optimizer (lookahead weights from a trial step of the optimizer)"],
        ["same_dropout_mask", "True"],
        ["World size", "1"],
        ["Total train batch size", "8"],
        ["Gradient computations per update", "2, one after the other"],
    ]


def test_a_pair_counts_its_shard_once(published):
    card = ModelCard.load(published.folder / "sampa" / "README.md")
    assert table_of(card, "## Sharpness-aware training")[-4:] == [
        ["World size", "2"],
        ["Pairs of ranks", "1 (the two ranks of a pair see the same data)"],
        ["Total train batch size", "4"],
        ["Gradient computations per update", "2, side by side on the two ranks of a pair"],
    ]
    assert re.findall(r"total_train_batch_size: (\d+)", card.text) == ["4"]
    assert "## Training and evaluation data\n\nRandom words.\n" in card.text
    card = ModelCard.load(published.folder / "sam" / "README.md")
    assert re.findall(r"total_train_batch_size: (\d+)", card.text) == ["8"]
    assert card.data.tags == ["of-the-user", "hf_sam", "sam", "generated_from_trainer"]


def test_training_log_is_that_of_the_state(glue):
    logged = [entry for entry in glue.state.log_history if "loss" in entry]
    names = ["step", "epoch", "loss", "sam/perturbed_loss", "sam/sharpness", "sam/ascent_grad_norm"]
    rows = table_of(card_of(glue), "### Training log")
    assert [[float(cell) for cell in row] for row in rows] == [
        [float(f"{entry[name]:.4g}") for name in names] for entry in logged
    ]


def test_papers_of_the_method_are_cited(glue, cifar):
    keys = {run: re.findall(r"^@\w+\{(\w+),$", card_of(run).text, flags=re.MULTILINE) for run in (glue, cifar)}
    assert keys[glue] == ["foret2021sharpness", "behdin2023msam"]
    assert keys[cifar] == ["xie2024sampa", "foret2021sharpness"]


def test_loading_code_runs(glue, cifar):
    for trainer in (glue, cifar):
        trainer.save_model()
        name = trainer.args.output_dir.rsplit("/", 1)[-1]
        code = card_of(trainer).text.split("```python\n")[1].split("```")[0].replace(f'"{name}"', "folder")
        loaded = {"folder": trainer.args.output_dir}
        exec(code, loaded)
        for key, weight in trainer.model.state_dict().items():
            torch.testing.assert_close(loaded["model"].state_dict()[key], weight, rtol=0, atol=0)


def test_adapter_keeps_the_tags_of_everybody(glue, tmp_path):
    peft = pytest.importorskip("peft")
    model = BertForSequenceClassification(BertConfig(vocab_size=2, num_labels=2, **SIZE))
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, task_type="SEQ_CLS"))
    trainer = train(adapted, glue.train_dataset, glue.processing_class, tmp_path / "adapter", SAMConfig())
    trainer.save_model()
    trainer.create_model_card(tags="of-the-user")
    card = card_of(trainer)
    assert {"of-the-user", "hf_sam", "sam", "generated_from_trainer", "lora"} <= set(card.data.tags)
    assert card_problems(str(card)) == ([], [])
    assert 'PeftModel.from_pretrained(base_model, "adapter")' in card.text


def test_stock_method_leaves_the_card_of_the_host(glue, tmp_path):
    args = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to=[])
    trainer = SAMTrainer(glue.model, args, sam_config=SAMConfig(method="none"))
    trainer.create_model_card()
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.tags == ["generated_from_trainer"]
    assert "Sharpness" not in card.text


@pytest.mark.parametrize("method", ["none", "sam"])
def test_what_was_done_to_the_data_stands_in_the_section_of_the_host(method, glue, tmp_path):
    args = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to=[])
    trainer = SAMTrainer(glue.model, args, sam_config=SAMConfig(method=method))
    trainer.create_model_card()
    without = (tmp_path / "README.md").read_text()
    trainer.create_model_card(data_description="- noise: 0.4")
    heading, unsaid = "\n## Training and evaluation data\n\n", "More information needed\n"
    assert without.count(f"{heading}{unsaid}") == 1
    expected = without.replace(f"{heading}{unsaid}", f"{heading}- noise: 0.4\n")
    assert (tmp_path / "README.md").read_text() == expected


def test_a_card_without_the_section_gets_it():
    assert describe_data("# model\n", "- noise") == "# model\n\n## Training and evaluation data\n\n- noise\n"


def test_only_changed_hyperparameters_are_listed(tmp_path):
    assert non_default_arguments(TrainingArguments(output_dir=str(tmp_path), use_cpu=True)) == {}
    args = TrainingArguments(
        output_dir=str(tmp_path),
        hub_token="hf_secret",
        hub_model_id="alice/model",
        logging_steps=3,
        learning_rate=1e-3,
        lr_scheduler_type="cosine",
        label_smoothing_factor=0.1,
        use_cpu=True,
    )
    assert non_default_arguments(args) == {
        "learning_rate": 1e-3,
        "lr_scheduler_type": "cosine",
        "label_smoothing_factor": 0.1,
    }


def test_long_log_is_thinned(glue, tmp_path, monkeypatch):
    monkeypatch.setattr(glue.state, "log_history", [{"loss": 1.0, "step": step} for step in range(1, 1001)])
    monkeypatch.setattr(glue.args, "output_dir", str(tmp_path))
    glue.create_model_card()
    steps = [int(row[0]) for row in table_of(card_of(glue), "### Training log")]
    assert steps == list(range(25, 1001, 25))
    assert len(steps) == MAX_LOG_ROWS
