"""One process of a run that is going to be killed: it trains a tiny BERT and kills itself at the moment aimed at.

Forked by `faults.py`, so that a start costs a fraction of a second.
"""

import functools
import hashlib
import json
import logging
import os
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import BertForSequenceClassification, PrinterCallback, Trainer, TrainerCallback, TrainerState
from transformers.training_args import TrainingArguments
from workload import METHODS, TINY, RandomTokens

import hf_sam.checkpoints.manifest
from hf_sam import SAMConfig, SAMTrainer


UPDATES, SAVE_STEPS, BATCH = 12, 2, 4


@dataclass(frozen=True)
class Moment:
    """
    The process dies at call `count` of `owner.name`: before it, or after it with the newest file that matches `cut`
    cut off in the middle, as it is while it is being written.
    """

    owner: Any
    name: str
    after: bool = False
    cut: str | None = None


# Saving, in the order in which it happens; then the rest of an update.
SAVING = {
    "mark written": Moment(hf_sam.checkpoints.manifest, "begin", after=True),
    "weights half written": Moment(Trainer, "_save", after=True, cut="model.safetensors"),
    "optimizer half written": Moment(Trainer, "_save_optimizer_and_scheduler", after=True, cut="optimizer.pt"),
    "method's state half written": Moment(Trainer, "_save_scaler", cut="sam_state.safetensors"),
    "random state not written": Moment(Trainer, "_save_rng_state"),
    "random state half written": Moment(Trainer, "_save_rng_state", after=True, cut="rng_state*.pth"),
    "trainer state half written": Moment(TrainerState, "save_to_json", after=True, cut="trainer_state.json"),
    "manifest not written": Moment(hf_sam.checkpoints.manifest, "finish"),
    "manifest written": Moment(hf_sam.checkpoints.manifest, "finish", after=True),
    "older one half deleted": Moment(shutil, "rmtree"),
}
TRAINING = {
    "forward pass": Moment(BertForSequenceClassification, "forward"),
    "backward pass": Moment(torch.Tensor, "backward", after=True),
    "optimizer's step": Moment(torch.optim.AdamW, "step"),
    "after the step": Moment(torch.optim.AdamW, "step", after=True),
}
MOMENTS = SAVING | TRAINING


@dataclass(frozen=True)
class Aim:
    moment: str
    rank: int
    count: int


def die_at(aim: Aim, folder: Path) -> None:
    """From now on, this process dies at the moment aimed at."""
    moment = MOMENTS[aim.moment]
    original: Callable = getattr(moment.owner, moment.name)
    calls = 0

    @functools.wraps(original)
    def fatal(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == aim.count and not moment.after:
            if aim.moment == "older one half deleted":
                next(path for path in sorted(Path(args[0]).iterdir()) if path.is_file()).unlink()
            _cut(folder, moment.cut)
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*args, **kwargs)
        if calls == aim.count:
            _cut(folder, moment.cut)
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(moment.owner, moment.name, fatal)


def _cut(folder: Path, pattern: str | None) -> None:
    files = sorted(folder.glob(f"checkpoint-*/{pattern}"), key=lambda path: path.stat().st_mtime_ns) if pattern else []
    if files:
        os.truncate(files[-1], files[-1].stat().st_size // 2)


class Begun(TrainerCallback):
    """Notes the update from which this start goes on."""

    def __init__(self, path: Path):
        self.path = path

    def on_train_begin(self, args, state, control, **kwargs):
        self.path.write_text(str(state.global_step))


def make_trainer(method: str, folder: Path, callbacks=(), **arguments: Any) -> Trainer:
    defaults = {
        "max_steps": UPDATES,
        "per_device_train_batch_size": BATCH,
        "learning_rate": 1e-3,
        "logging_strategy": "no",
        "save_steps": SAVE_STEPS,
        "save_total_limit": 2,
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "ddp_find_unused_parameters": False,
        "dataloader_pin_memory": False,
    }
    args = TrainingArguments(output_dir=str(folder), **defaults | arguments)
    options = METHODS[method]
    trainer_class, extra = (Trainer, {}) if options is None else (SAMTrainer, {"sam_config": SAMConfig(**options)})
    data = RandomTokens(40 * BATCH, TINY)
    trainer = trainer_class(model=TINY.build(), args=args, train_dataset=data, callbacks=list(callbacks), **extra)
    trainer.remove_callback(PrinterCallback)
    trainer.model_accepts_loss_kwargs = False
    return trainer


def train(method: str, folder: Path, notes: Path, aim: Aim | None) -> None:
    """One start on this rank; leaves in `notes` where it began, and if it comes to the end, all bits it ends with."""
    rank = int(os.environ.get("RANK", "0"))
    log = open(notes / f"log-{rank}", "w")  # noqa: SIM115
    os.dup2(log.fileno(), sys.stdout.fileno())
    os.dup2(log.fileno(), sys.stderr.fileno())
    logging.basicConfig(level=logging.WARNING, force=True)
    trainer = make_trainer(method, folder, [Begun(notes / f"begun-{rank}")])
    if aim is not None and aim.rank == rank:
        die_at(aim, folder)
    trainer.train(resume_from_checkpoint="auto")
    (notes / f"ended-{rank}").write_text(digest(trainer))


def digest(trainer: Trainer) -> str:
    """SHA-256 of the weights, the optimizer's state and the random stream."""
    tensors = dict(trainer.accelerator.unwrap_model(trainer.model).state_dict())
    for index, entry in trainer.optimizer.state_dict()["state"].items():
        tensors |= {f"{index}.{name}": torch.as_tensor(value) for name, value in entry.items()}
    tensors["random stream"] = torch.get_rng_state()
    result = hashlib.sha256(json.dumps(sorted(tensors)).encode())
    for name in sorted(tensors):
        result.update(tensors[name].detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return result.hexdigest()
