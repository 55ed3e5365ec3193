"""Runs that are started on one process and on several: in go a number of ranks and a folder, out comes an outcome."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch.nn.functional import cross_entropy
from transformers import EarlyStoppingCallback

from hf_sam import SAMConfig
from tests import harness
from tests.host import parameters, setups, trainers
from tests.host.setups import CONFIGS


Case = Callable[[int, Path], dict[str, Any]]
TOTAL_BATCH = 8


def batch_arguments(name: str, ranks: int, accumulation: int = 1) -> dict[str, int]:
    """The same rows make up an update, however many ranks there are."""
    shards = max(1, ranks // 2) if CONFIGS[name].method == "sampa" else ranks
    size = TOTAL_BATCH // shards // accumulation
    return {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation}


# ---- losses that are scaled by the host, by the model, or by nobody ----


def causal_lm(name: str, accumulation: int, ranks: int, folder: Path) -> dict[str, Any]:
    # SAM fills up the last batch of an uneven epoch on several ranks, as DistributedDataParallel does.
    rows = setups.sentences(28 if CONFIGS[name].method == "sampa" else 24)
    arguments = batch_arguments(name, ranks, accumulation)
    options = {"data_collator": setups.collate_for_causal_lm, "arguments": arguments}
    return setups.train(setups.causal_lm(), rows, folder, CONFIGS[name], **options)


def classification(name: str, accumulation: int, ranks: int, folder: Path, **options) -> dict[str, Any]:
    rows = setups.sentences(24)
    arguments = batch_arguments(name, ranks, accumulation) | options.pop("arguments", {})
    options = {"data_collator": setups.collate_for_classification, "arguments": arguments} | options
    trainer = setups.make_trainer(setups.classifier(), rows, folder, CONFIGS[name], **options)
    assert trainer.model_accepts_loss_kwargs
    trainer.train()
    return setups.outcome(trainer)


def sum_over_items(outputs, labels, num_items_in_batch=None):
    return cross_entropy(outputs.logits, labels, reduction="sum") / num_items_in_batch


CASES: dict[str, Case] = {
    f"causal-lm-{name}-{steps}": partial(causal_lm, name, steps)
    for name in ("sam-global", "sampa")
    for steps in (1, 4)
}
CASES |= {
    f"{what}-{name}-{steps}": partial(classification, name, steps, **options)
    for what, options in {
        "head": {},
        "smoothing": {"arguments": {"label_smoothing_factor": 0.2}},
        "loss-func": {"compute_loss_func": sum_over_items},
        "own-loss": {"base": trainers.WithOwnLoss},
        "own-hooks": {"base": trainers.WithOwnHooks},
    }.items()
    for name in ("sam-global", "sampa")
    for steps in (1, 2)
}


# ---- parameters ----


def adapters(name: str, ranks: int, folder: Path) -> dict[str, Any]:
    options = {"data_collator": setups.collate_for_classification, "arguments": batch_arguments(name, ranks)}
    trainer = setups.make_trainer(parameters.with_adapters(), setups.sentences(24), folder, CONFIGS[name], **options)
    trainer.model_accepts_loss_kwargs = False
    trainer.train()
    return setups.outcome(trainer)


SKIPPING_ARGUMENTS = {"lr_scheduler_type": "constant", "weight_decay": 0.0, "max_grad_norm": 0.0}


def skipping(name: str, ranks: int, folder: Path) -> dict[str, Any]:
    """Four rows decide together whether a branch is used, on one process as on two."""
    arguments = {
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2 // (ranks if name == "sam-global" else 1),
        "ddp_find_unused_parameters": True,
        **SKIPPING_ARGUMENTS,
    }
    rows = harness.make_dataset(40)
    return setups.train(parameters.Skipping("positive"), rows, folder, CONFIGS[name], arguments=arguments)


CASES |= {f"adapters-{name}": partial(adapters, name) for name in ("sam-global", "sampa")}
CASES |= {f"skipping-{name}": partial(skipping, name) for name in ("sam-global", "sampa", "sampa-gradient")}


# ---- data ----

DATA: dict[str, dict[str, Any]] = {
    "shuffled": {"train_sampling_strategy": "random"},
    "evaluated": {"train_sampling_strategy": "random", "eval_strategy": "steps", "eval_steps": 2},
    "grouped": {"train_sampling_strategy": "group_by_length"},
    "accumulated": {"train_sampling_strategy": "random", "gradient_accumulation_steps": 3},
    "dropped": {"train_sampling_strategy": "random", "dataloader_drop_last": True},
    "augmented": {"train_sampling_strategy": "random"},
    "augmented-by-workers": {"train_sampling_strategy": "random", "dataloader_num_workers": 2},
    "streamed": {"max_steps": 11},
    "streamed-once": {"max_steps": 11},
}
DATA_ROWS, DATA_BATCH, DATA_EPOCHS = 30, 4, 3


def read_data(setting: str, method: str, ranks: int, folder: Path) -> dict[str, Any]:
    """In the outcome are, for each micro-batch in order, its `rows`, a checksum of what they say, and its size."""
    rows = setups.sentences(DATA_ROWS)
    data: Any = rows
    if setting.startswith("augmented"):
        data = trainers.Augmented(rows)
    elif setting.startswith("streamed"):
        data = trainers.Stream(rows, passes=1 if setting == "streamed-once" else None)
    arguments = {
        "num_train_epochs": DATA_EPOCHS,
        "per_device_train_batch_size": DATA_BATCH,
        "include_num_input_tokens_seen": "non_padding",
    }
    trainer = setups.make_trainer(
        setups.classifier(dropout=0.1 if setting == "evaluated" else 0.0),
        data,
        folder,
        None if method == "stock" else CONFIGS[method],
        base=trainers.Recording,
        arguments=arguments | DATA[setting],
        data_collator=trainers.collate_with_index,
        eval_dataset=rows[:6],
    )
    output = trainer.train()
    total = trainer.get_total_train_batch_size(trainer.args)
    recorded = {"rows": trainer.seen, "checksums": trainer.checksums, "sizes": trainer.sizes, "total_batch": total}
    return setups.outcome(trainer) | recorded | {"metrics": output.metrics}


CASES |= {f"data-{setting}": partial(read_data, setting, "sampa") for setting in DATA}
CASES["accounting-sam"] = partial(read_data, "shuffled", "sam")
CASES["accounting-stock"] = partial(read_data, "shuffled", "stock")


# ---- what hosts do on several ranks ----

# Windows of 4, 4 and 2 micro-batches on one shard of the rows.
UNEVEN = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4, "optim": "sgd", "learning_rate": 0.1}


def collective(config: SAMConfig, ranks: int, folder: Path) -> dict[str, Any]:
    options = {"data_collator": setups.collate_for_classification, "arguments": UNEVEN}
    trainer = setups.make_trainer(
        setups.classifier(), setups.sentences(20), folder, config, base=trainers.WithCollective, **options
    )
    trainer.model_accepts_loss_kwargs = False
    trainer.train()
    return setups.outcome(trainer)


def own_batches(ranks: int, folder: Path) -> dict[str, Any]:
    trainer = setups.make_trainer(
        setups.classifier(),
        setups.sentences(24),
        folder,
        CONFIGS["sampa"],
        base=trainers.WithOwnBatches,
        arguments={"per_device_train_batch_size": 2, "num_train_epochs": 3},
        data_collator=trainers.collate_with_index,
    )
    trainer.train()
    return setups.outcome(trainer) | {"rows": trainer.seen, "even_batches": trainer.accelerator.even_batches}


def stopped_early(name: str, ranks: int, folder: Path) -> dict[str, Any]:
    """Steps that are too long make the loss grow, and the best model is an early one."""
    arguments = {
        "num_train_epochs": 8,
        "learning_rate": 0.5,
        "lr_scheduler_type": "constant",
        "eval_strategy": "steps",
        "eval_steps": 1,
        "save_strategy": "steps",
        "save_steps": 1,
        "load_best_model_at_end": True,
        "metric_for_best_model": "eval_loss",
    }
    rows = setups.sentences(24)
    trainer = setups.make_trainer(
        setups.classifier(),
        rows,
        folder,
        CONFIGS[name],
        arguments=batch_arguments(name, ranks) | arguments,
        data_collator=setups.collate_for_classification,
        eval_dataset=rows,
        callbacks=[EarlyStoppingCallback(early_stopping_patience=2)],
    )
    trainer.model_accepts_loss_kwargs = False
    trainer.train()
    losses = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    left = {"eval_losses": losses, "best_step": trainer.state.best_global_step}
    return setups.outcome(trainer) | left | {"final": trainer.evaluate()["eval_loss"]}


CASES |= {
    "collective-sampa": partial(collective, CONFIGS["sampa-gradient"]),
    "collective-sam": partial(collective, CONFIGS["sam-global"]),
    "own-batches": own_batches,
}
CASES |= {f"stopped-early-{name}": partial(stopped_early, name) for name in ("sam-global", "sampa")}


@dataclass
class Run:
    case: str
    ranks: int


def train(run: Run, folder: Path) -> dict[str, Any]:
    return CASES[run.case](run.ranks, folder)
