"""Tiny training runs: in goes a `Run` of plain values, so it can travel to other processes; out comes what it left."""

import hashlib
import os
import pydoc
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments

from hf_sam import SAMConfig, SAMPaSimilarity, SAMTrainer


FEATURES, HIDDEN, CLASSES = 6, 8, 3


class TinyModel(nn.Module):
    """x (batch, 6) -> 3 classes, by one hidden layer of 8 or `width`. Returns mean cross entropy and logits."""

    def __init__(
        self,
        dropout: float = 0.0,
        batch_norm: bool = False,
        layer_norm: bool = False,
        unused: bool = False,
        frozen: bool = False,
        explode_at: Sequence[int] = (),
        explode_on_rank: int = 0,
        width: int = HIDDEN,
    ):
        super().__init__()
        # The passes, counted from 0, whose gradient is not finite on one rank.
        self.explode_at, self.explode_on_rank, self.passes = explode_at, explode_on_rank, 0
        self.inner = nn.Linear(FEATURES, width)
        self.norm = nn.BatchNorm1d(width) if batch_norm else nn.LayerNorm(width) if layer_norm else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.outer = nn.Linear(width, CLASSES)
        if unused:
            self.unused = nn.Linear(2, 2)
        if frozen:
            self.inner.weight.requires_grad = False

    def forward(self, x, labels=None):
        logits = self.outer(self.dropout(torch.tanh(self.norm(self.inner(x)))))
        loss = nn.functional.cross_entropy(logits, labels)
        if self.training:
            if self.passes in self.explode_at and int(os.environ.get("RANK", "0")) == self.explode_on_rank:
                loss = loss * torch.inf
            self.passes += 1
        return {"loss": loss, "logits": logits}


@dataclass
class Run:
    """One training run. `trainer` is "stock" for the host's own class."""

    method: str = "sam"
    trainer: str = "sam"
    config: dict[str, Any] = field(default_factory=dict)
    arguments: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    examples: int = 44
    dtype: str = "float64"
    resume_from: str | None = None
    iterable: bool = False
    loss_scale: float | None = None
    similarity_every: int | None = None
    stop_after: int | None = None
    # The path of a class and its options, in place of `TrainingArguments.optim`.
    optimizer: tuple[str, dict[str, Any]] | None = None


def make_dataset(examples: int, dtype: torch.dtype = torch.float64) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(examples, FEATURES, generator=generator, dtype=torch.float64)
    teacher = torch.randn(FEATURES, CLASSES, generator=generator, dtype=torch.float64)
    noise = torch.randn(examples, CLASSES, generator=generator, dtype=torch.float64)
    labels = (x @ teacher + noise).argmax(-1)
    return [{"x": row.to(dtype), "labels": label} for row, label in zip(x, labels, strict=True)]


class UnscaleBeforeClipping(TrainerCallback):
    """fp16 without an accelerator: the model is wrapped without autocast, then loss scaling works as it does there."""

    def __init__(self, trainer: Trainer):
        self.accelerator = trainer.accelerator

    def on_train_begin(self, args, state, control, **kwargs):
        self.accelerator.native_amp = True
        self.accelerator.state._mixed_precision = "fp16"

    def on_train_end(self, args, state, control, **kwargs):
        self.accelerator.state._mixed_precision = "no"


class StopAfter(TrainerCallback):
    """Interrupts training after an update, as a job that reaches its time limit."""

    def __init__(self, update: int):
        self.update = update

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step >= self.update


class Trace(TrainerCallback):
    """Notes after every update the weights, the loss scale, and a hash of all bits of weights and optimizer state."""

    def __init__(self):
        self.weights: list[dict[str, torch.Tensor]] = []
        self.scales: list[float] = []
        self.hashes: list[str] = []

    def on_step_end(self, args, state, control, model=None, optimizer=None, **kwargs):
        self.weights.append(weights_of(model))
        scaler = getattr(optimizer, "scaler", None)
        self.scales.append(1.0 if scaler is None else scaler.get_scale())
        digest = hashlib.sha256()
        for tensor in tensors_in([model.state_dict(), optimizer.state_dict()["state"]]).values():
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
        self.hashes.append(digest.hexdigest())


class Streamed(torch.utils.data.IterableDataset):
    """A data set without a length. Notes the epochs it was told of."""

    def __init__(self, rows):
        self.rows, self.epochs = rows, []

    def set_epoch(self, epoch):
        self.epochs.append(epoch)

    def __iter__(self):
        yield from self.rows


# What short runs on a CPU have in common: every update is logged, and nothing else is written.
ARGUMENTS = {
    "num_train_epochs": 2,
    "weight_decay": 0.1,
    "max_grad_norm": 1.0,
    "train_sampling_strategy": "sequential",
    "optim": "adamw_torch",
    "logging_strategy": "steps",
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": [],
    "disable_tqdm": True,
    "use_cpu": True,
}


def make_trainer(run: Run, output_dir: str | Path, callbacks=None, base: type[Trainer] | None = None) -> Trainer:
    dtype = getattr(torch, run.dtype)
    torch.manual_seed(3)
    model = TinyModel(**run.model).to(dtype)
    defaults = ARGUMENTS | {
        "per_device_train_batch_size": 4,
        "learning_rate": 0.02,
        "ddp_find_unused_parameters": bool(run.model.get("unused")),
    }
    arguments = TrainingArguments(output_dir=str(output_dir), **defaults | run.arguments)
    rows = make_dataset(run.examples, dtype)
    data = Streamed(rows) if run.iterable else rows
    if run.similarity_every:
        callbacks = [*(callbacks or []), SAMPaSimilarity(run.similarity_every)]
    if run.stop_after:
        callbacks = [*(callbacks or []), StopAfter(run.stop_after)]
    common = {"train_dataset": data, "eval_dataset": rows[:8], "callbacks": callbacks}
    if run.optimizer:
        path, options = run.optimizer
        common["optimizer_cls_and_kwargs"] = (pydoc.locate(path), {"lr": arguments.learning_rate} | options)
    if run.trainer == "stock":
        trainer = (base or Trainer)(model, arguments, **common)
    else:
        config = SAMConfig(method=run.method, **run.config)
        trainer = (base or SAMTrainer)(model, arguments, **common, sam_config=config)
    if run.loss_scale is not None:
        trainer.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=run.loss_scale, growth_interval=4)
        trainer.add_callback(UnscaleBeforeClipping(trainer))
    return trainer


def weights_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def tensors_in(value: Any, path: str = "") -> dict[str, torch.Tensor]:
    """Copies of all tensors and numbers in dictionaries and lists, by their keys and positions."""
    if isinstance(value, (torch.Tensor, int, float)):
        return {path: torch.as_tensor(value).detach().clone()}
    entries = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    )
    found = {}
    for name, entry in entries:
        found |= tensors_in(entry, f"{path}.{name}" if path else str(name))
    return found


def optimizer_state_of(trainer: Trainer) -> dict[str, torch.Tensor]:
    """Everything in the optimizer's state, by position and name."""
    return tensors_in(trainer.optimizer.state_dict()["state"])


def train(run: Run, output_dir: str | Path, callbacks=None, base: type[Trainer] | None = None) -> dict[str, Any]:
    """Train, and return the weights, the optimizer's state, the log and the trainer's state."""
    trace = Trace()
    trainer = make_trainer(run, output_dir, [*(callbacks or []), trace], base)
    trainer.train(resume_from_checkpoint=run.resume_from)
    return {
        "weights": weights_of(trainer.model),
        "optimizer": optimizer_state_of(trainer),
        "log": trainer.state.log_history,
        "state": {name: getattr(trainer.state, name) for name in ("global_step", "epoch", "total_flos")},
        "rng": torch.get_rng_state(),
        "trace": trace,
    }


def largest_difference(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> float:
    assert left.keys() == right.keys()
    return max(float((left[name].double() - right[name].double()).abs().max()) for name in left)


def same_bits(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)
