"""Tiny training runs on images: in goes a `Run` of plain values, out comes what the model saw and what it became."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers import TrainerCallback, TrainingArguments, default_data_collator

from hf_sam import SAMConfig
from hf_sam_recipes.images.examples import Augmentation, AugmentedExamples, ImageExamples
from hf_sam_recipes.images.trainer import ImageTrainer
from tests.cifar import made_cifar


EXAMPLES, BATCH, SEED = 44, 4, 5
UPDATES_PER_EPOCH = EXAMPLES // BATCH
OPTIONS = {"rho": 0.1, "sampa_lambda": 0.2}


@dataclass
class Run:
    method: str = "none"
    model: str = "vit"
    arguments: dict[str, Any] = field(default_factory=dict)
    stop: int | None = None
    resume_from: str | None = None


class StopAfter(TrainerCallback):
    def __init__(self, update: int | None):
        self.update = update

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = control.should_training_stop or state.global_step == self.update


class Watch:
    """Notes a digest of every batch that a model is trained on, and what goes into each of its BatchNorm modules."""

    def __init__(self, model: nn.Module):
        self.batches: list[str] = []
        self.inputs: dict[str, list[torch.Tensor]] = {}
        model.register_forward_pre_hook(self.note_batch, with_kwargs=True)
        for name, module in model.named_modules():
            if isinstance(module, nn.BatchNorm2d):
                self.inputs[name] = []
                module.register_forward_pre_hook(self.note_input(name))

    def note_batch(self, model, args, kwargs):
        if model.training:
            self.batches.append(digest(kwargs["pixel_values"]))

    def note_input(self, name: str):
        def note(module, args):
            if module.training:
                self.inputs[name].append(args[0].detach().clone())

        return note


def digest(pixels: torch.Tensor) -> str:
    return hashlib.sha256(pixels.contiguous().numpy().tobytes()).hexdigest()


def make_examples(kind: str = "vit") -> tuple[AugmentedExamples, ImageExamples]:
    processor = made_cifar.make_processor(kind)
    train = made_cifar.hub_dataset("cifar10", "train").rename_column("img", "image").select(range(EXAMPLES))
    test = made_cifar.hub_dataset("cifar10", "test").rename_column("img", "image")
    return AugmentedExamples(train, processor, Augmentation(padding=2), SEED), ImageExamples(test, processor)


def train(run: Run, output_dir: Path) -> dict[str, Any]:
    torch.manual_seed(3)
    model = made_cifar.make_model(run.model)
    watch = Watch(model)
    train_data, eval_data = make_examples(run.model)
    defaults = {
        "per_device_train_batch_size": BATCH,
        "per_device_eval_batch_size": 5,
        "learning_rate": 5e-3,
        "num_train_epochs": 3,
        "logging_strategy": "no",
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": True,
        "dataloader_pin_memory": False,
        "ddp_find_unused_parameters": False,
    }
    trainer = ImageTrainer(
        model=model,
        args=TrainingArguments(output_dir=str(output_dir), **defaults | run.arguments),
        train_dataset=train_data,
        eval_dataset=eval_data,
        callbacks=[StopAfter(run.stop)],
        sam_config=SAMConfig(method=run.method, **OPTIONS),
    )
    trainer.model_accepts_loss_kwargs = False
    trainer.train(resume_from_checkpoint=run.resume_from)
    return {
        "weights": {name: value.detach().clone() for name, value in model.state_dict().items()},
        "batches": watch.batches,
        "inputs": watch.inputs,
        "updates": trainer.state.global_step,
        "evaluation": trainer.evaluate(),
        "logits": _logits(model, eval_data),
    }


@torch.no_grad()
def _logits(model: nn.Module, examples: ImageExamples) -> torch.Tensor:
    """What this rank's own model says about all evaluation images."""
    model.eval()
    loader = DataLoader(examples, batch_size=len(examples), collate_fn=default_data_collator)
    return model(pixel_values=next(iter(loader))["pixel_values"]).logits
