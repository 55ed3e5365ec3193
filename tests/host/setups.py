"""Tiny models, data and trainers as a user of Trainer would write them. All is float64 and starts from a seed."""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    Trainer,
    TrainingArguments,
)

from hf_sam import SAMConfig, SAMTrainerMixin
from tests.harness import ARGUMENTS, largest_difference, weights_of


VOCABULARY, PADDING, IGNORED = 32, 0, -100
CONFIGS = {
    "sam": SAMConfig(rho=0.1),
    "sam-global": SAMConfig(rho=0.1, ascent_scope="global"),
    "sampa": SAMConfig(method="sampa", rho=0.1),
    "sampa-gradient": SAMConfig(method="sampa", rho=0.1, lookahead="gradient"),
}


def causal_lm_loss(logits, labels, vocab_size, num_items_in_batch=None, **kwargs):
    """The loss of the host's causal models, which would round float64 logits to float32."""
    labels = nn.functional.pad(labels, (0, 1), value=IGNORED)[..., 1:]
    reduction = "mean" if num_items_in_batch is None else "sum"
    loss = nn.functional.cross_entropy(
        logits.reshape(-1, vocab_size), labels.reshape(-1), ignore_index=IGNORED, reduction=reduction
    )
    return loss if num_items_in_batch is None else loss / num_items_in_batch


def causal_lm(dropout: float = 0.0) -> GPT2LMHeadModel:
    """Its head and its embedding are one tied parameter."""
    torch.manual_seed(1)
    rates = {"resid_pdrop": dropout, "embd_pdrop": dropout, "attn_pdrop": dropout}
    special = {"bos_token_id": 1, "eos_token_id": 1, "pad_token_id": PADDING}
    config = GPT2Config(vocab_size=VOCABULARY, n_positions=16, n_embd=16, n_layer=2, n_head=2, **rates, **special)
    model = GPT2LMHeadModel(config).double()
    model.loss_function = causal_lm_loss
    return model


def classifier(labels: int = 3, dropout: float = 0.0) -> BertForSequenceClassification:
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        num_labels=labels,
    )
    return BertForSequenceClassification(config).double()


def sentences(count: int, seed: int = 5) -> list[dict[str, Any]]:
    """Token sequences of 3 to 12 ids; the label counts the ids below 12, in three classes."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for index in range(count):
        length = int(torch.randint(3, 13, (), generator=generator))
        ids = torch.randint(2, VOCABULARY, (length,), generator=generator).tolist()
        rows.append({"input_ids": ids, "labels": sum(i < 12 for i in ids) % 3, "index": index})
    return rows


def pad(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    longest = max(len(row["input_ids"]) for row in rows)
    ids = torch.full((len(rows), longest), PADDING)
    for position, row in enumerate(rows):
        ids[position, : len(row["input_ids"])] = torch.tensor(row["input_ids"])
    return {"input_ids": ids, "attention_mask": ids.ne(PADDING).long()}


def collate_for_classification(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    return pad(rows) | {"labels": torch.tensor([row["labels"] for row in rows])}


def collate_for_causal_lm(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """The first label counts too: each sequence is a prompt of `labels` ids and an answer that is learnt."""
    batch = pad(rows)
    labels = batch["input_ids"].masked_fill(batch["attention_mask"].eq(0), IGNORED)
    for position, row in enumerate(rows):
        labels[position, : row["labels"]] = IGNORED
    return batch | {"labels": labels}


def make_arguments(folder: str | Path, cls: type[TrainingArguments] = TrainingArguments, **options) -> Any:
    defaults = ARGUMENTS | {
        "per_device_train_batch_size": 8,
        "learning_rate": 0.01,
        "remove_unused_columns": False,
        "ddp_find_unused_parameters": False,
        "dataloader_pin_memory": False,
    }
    return cls(output_dir=str(folder), **defaults | options)


def make_trainer(
    model: nn.Module,
    rows: Any,
    folder: str | Path,
    config: SAMConfig | None = None,
    base: type[Trainer] = Trainer,
    arguments: dict[str, Any] | None = None,
    **options,
) -> Trainer:
    """With a `config`, `base` gets the mixin in front; without one it is used as it is."""
    if config is not None:
        base, options = type("Sharp" + base.__name__, (SAMTrainerMixin, base), {}), options | {"sam_config": config}
    return base(model, make_arguments(folder, **arguments or {}), train_dataset=rows, **options)


def train(*positional, **options) -> dict[str, Any]:
    """Takes the arguments of `make_trainer`. Returns what the run has left."""
    trainer = make_trainer(*positional, **options)
    output = trainer.train()
    return outcome(trainer) | {"metrics": output.metrics}


def outcome(trainer: Trainer) -> dict[str, Any]:
    state = trainer.state
    return {
        "weights": weights_of(trainer.model),
        "losses": [entry["loss"] for entry in state.log_history if "loss" in entry],
        "perturbed_losses": [
            entry["sam/perturbed_loss"] for entry in state.log_history if "sam/perturbed_loss" in entry
        ],
        "steps": state.global_step,
        "epoch": state.epoch,
        "total_flos": state.total_flos,
        "tokens": state.num_input_tokens_seen,
    }


def assert_same_weights(left: dict[str, Any], right: dict[str, Any], tolerance: float = 1e-9) -> None:
    """All weights agree, and what is left of a difference has no direction."""
    ours, theirs = left["weights"], right["weights"]
    assert largest_difference(ours, theirs) < tolerance
    residual = torch.cat([(ours[name] - theirs[name]).double().reshape(-1) for name in ours])
    assert abs(float(residual.mean())) < tolerance / 10


def assert_same_losses(left: dict[str, Any], right: dict[str, Any], tolerance: float = 1e-6) -> None:
    """The logged ones, which pass through float32."""
    assert len(left["losses"]) == len(right["losses"]) > 0
    for ours, theirs in zip(left["losses"], right["losses"], strict=True):
        assert abs(ours - theirs) < tolerance


def assert_moved(left: dict[str, Any], right: dict[str, Any], least: float = 1e-4) -> None:
    """What is compared elsewhere would not agree by doing nothing."""
    assert largest_difference(left["weights"], right["weights"]) > least
