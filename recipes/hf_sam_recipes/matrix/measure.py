"""Train a recipe as it is, and measure what it costs and where it ends."""

import inspect
import resource
import sys
from dataclasses import asdict
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from hf_sam import SAMTrainer
from hf_sam.diagnostics import hessian_top_eigenvalue, worst_case_sharpness

from ..common.calibration import with_calibration
from ..common.clock import UpdateClock
from ..common.entry import is_at_work
from .environment import hardware


# The same ball, sample and seed for every method, or their sharpness could not be compared.
SHARPNESS_RHO = 0.05
SHARPNESS_SEED = 0
POWER_ITERATION_TOLERANCE = 1e-2
# About how long the Trainer took, not how well it did.
TIMINGS = ("runtime", "per_second", "samples", "epoch")


def train_and_measure(
    recipe: ModuleType, args: list[str], sample_size: int, ascent_steps: int, hessian_iterations: int
) -> dict[str, Any] | None:
    """
    Run a recipe script in this process and measure it.

    Args:
        recipe (`ModuleType`): The script, with `main(args, trainer_class)`. It gets a subclass of the trainer that it
            would take by itself, one that counts and times.
        args (`list[str]`): The command line of the script.
        sample_size (`int`): Training examples to measure sharpness on. 0 leaves sharpness out.
        ascent_steps (`int`): Steps to find the worst loss within `SHARPNESS_RHO` of the weights.
        hessian_iterations (`int`): Most Hessian-vector products for the largest eigenvalue. 0 leaves it out.

    Returns:
        `dict` with `train_info` and `meta_info`, as they stand in the record of a run; `None` on all ranks but the
        first.
    """
    trainers = []
    usual_class = inspect.signature(recipe.main).parameters["trainer_class"].default

    class MeasuredTrainer(usual_class):
        def __init__(self, *args, compute_metrics, **kwargs):
            super().__init__(*args, compute_metrics=with_calibration(compute_metrics), **kwargs)
            self.clock, self.gradients_at_step = UpdateClock(), {}
            self.add_callback(self.clock)
            trainers.append(self)

        def compute_loss(self, model, *args, **kwargs):
            # The training loss of every micro-batch is differentiated once. Counted, not derived from the method.
            self.clock.gradients += model.training
            return super().compute_loss(model, *args, **kwargs)

        def log(self, *args, **kwargs):
            self.gradients_at_step[self.state.global_step] = self.clock.gradients
            super().log(*args, **kwargs)

    metrics = recipe.main(args, trainer_class=MeasuredTrainer)
    (trainer,) = trainers
    return _measurements(trainer, metrics, sample_size, ascent_steps, hessian_iterations)


@is_at_work()
def _measurements(
    trainer: SAMTrainer, metrics: dict[str, float], sample_size: int, ascent_steps: int, hessian_iterations: int
) -> dict[str, Any] | None:
    peak = torch.tensor([_peak_memory()], dtype=torch.float64, device=trainer.args.device)
    peak = int(trainer.accelerator.gather(peak).max())
    steps = sorted(trainer.gradients_at_step)
    counts = torch.tensor([trainer.gradients_at_step[step] for step in steps], device=trainer.args.device)
    gradients = dict(zip(steps, trainer.accelerator.reduce(counts).tolist(), strict=True))
    if not trainer.is_world_process_zero():
        return None
    train_info = {
        "metrics": {name.removeprefix("eval_"): value for name, value in metrics.items() if not _is_timing(name)},
        "epochs": _epochs(trainer, gradients),
        "updates": trainer.state.global_step,
        "gradient_computations": gradients[trainer.state.global_step],
        "seconds_per_update": trainer.clock.seconds_per_update(),
        "train_seconds": sum(trainer.clock.first) + sum(trainer.clock.later),
        "peak_memory_bytes": peak,
        "peak_memory_of": "cuda, allocated" if torch.cuda.is_available() else "process, resident",
        "sharpness": _sharpness(trainer, sample_size, ascent_steps, hessian_iterations) if sample_size else None,
    }
    meta_info = {
        "hardware": hardware(),
        "processes": trainer.args.world_size,
        "data": {
            "train_samples": len(trainer.train_dataset),
            "eval_samples": {
                name: metrics[name] for name in metrics if name.startswith("eval_samples") and "per_second" not in name
            },
        },
        "training": _training_options(trainer),
    }
    return {"train_info": train_info, "meta_info": meta_info}


def _is_timing(name: str) -> bool:
    return any(timing in name for timing in TIMINGS)


def _peak_memory() -> int:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _epochs(trainer, gradients: dict[int, int]) -> list[dict[str, float]]:
    """What was logged and evaluated, one entry per point in training at which there was an evaluation."""
    epochs: dict[int, dict[str, float]] = {}
    for log in trainer.state.log_history:
        entry = epochs.setdefault(log["step"], {"epoch": log["epoch"], "updates": log["step"]})
        if "loss" in log:
            entry["train_loss"] = log["loss"]
            entry.update({name: value for name, value in log.items() if name.startswith("sam/")})
        entry.update({k: v for k, v in log.items() if k.startswith("eval_") and not _is_timing(k)})
    for step, entry in epochs.items():
        entry["train_seconds"] = trainer.clock.seconds_at_step[step]
        entry["gradient_computations"] = gradients[step]
    return [entry for _, entry in sorted(epochs.items()) if "eval_loss" in entry]


def _sharpness(trainer, sample_size: int, ascent_steps: int, hessian_iterations: int) -> dict[str, Any]:
    dataset = trainer.train_dataset
    if hasattr(dataset, "unaugmented"):
        # Images: which crop of them would the sharpness be of?
        dataset = dataset.unaugmented()
    size = min(sample_size, len(dataset))
    chosen = np.sort(np.random.default_rng(SHARPNESS_SEED).choice(len(dataset), size=size, replace=False))
    examples = torch.utils.data.Subset(dataset, chosen.tolist())
    batches = list(DataLoader(examples, trainer.args.per_device_train_batch_size, collate_fn=trainer.data_collator))
    # Without the autocast that accelerate leaves in the model: the worst of several rounded losses would be too high,
    # and most so where the minimum is flat.
    model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    worst = worst_case_sharpness(model, batches, SHARPNESS_RHO, ascent_steps, seed=SHARPNESS_SEED)
    result = {"rho": SHARPNESS_RHO, "examples": size, "ascent_steps": ascent_steps, **asdict(worst)}
    result["precision"] = str(next(model.parameters()).dtype).removeprefix("torch.")
    if hessian_iterations:
        top = hessian_top_eigenvalue(
            model, batches, hessian_iterations, POWER_ITERATION_TOLERANCE, seed=SHARPNESS_SEED
        )
        result["top_eigenvalue"] = asdict(top)
    return result


def _training_options(trainer) -> dict[str, Any]:
    names = (
        "learning_rate",
        "num_train_epochs",
        "max_steps",
        "per_device_train_batch_size",
        "gradient_accumulation_steps",
        "lr_scheduler_type",
        "warmup_steps",
        "weight_decay",
        "max_grad_norm",
        "bf16",
        "fp16",
        "seed",
        "data_seed",
    )
    options = {name: getattr(trainer.args, name) for name in names}
    options["lr_scheduler_type"] = str(getattr(options["lr_scheduler_type"], "value", options["lr_scheduler_type"]))
    return options | {"sam_config": trainer.sam_config.to_dict()}
