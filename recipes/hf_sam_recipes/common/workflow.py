"""The story that every recipe tells: prepare, train, evaluate, save, share."""

import logging
import os
import re
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
from datasets import Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments, set_seed
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, enable_full_determinism, get_last_checkpoint

from hf_sam import SAMConfig, SAMTrainer
from hf_sam.methods import METHODS

from .entry import is_at_work
from .folders import made_folder, refuse_folders


logger = transformers.utils.logging.get_logger(__name__)

# What a run writes beside its checkpoints.
OUTPUT_FILES = (
    *("README.md", "config.json", "model.safetensors", "sam_config.json", "training_args.bin", "trainer_state.json"),
    *("all_results.json", "train_results.json", "eval_results.json", "tokenizer.json", "tokenizer_config.json"),
    *("preprocessor_config.json", "confusion_matrix.png", "loss_curves.png"),
)

CHECKPOINT = re.compile(rf"{PREFIX_CHECKPOINT_DIR}-\d+")

# After an interrupt.
GO_ON = "the same command with --resume_from_checkpoint auto goes on from the latest checkpoint, if there is one"


def use_cpu_without_accelerator() -> None:
    """
    Let torchrun's processes train together on a machine without accelerator, as if `--use_cpu` were given. To be
    called before there are `TrainingArguments`.

    Without it, accelerate finds no accelerator, takes the run for a single-process one, and every process trains and
    saves a model of its own.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not torch.accelerator.is_available():
        os.environ["ACCELERATE_USE_CPU"] = "true"


def prepare(training_args: TrainingArguments) -> str | None:
    """
    Set up logging and the seed, and find the checkpoint to resume from, all before anything is loaded.

    Returns:
        `str` or `None`: the checkpoint that `resume_from_checkpoint` means: a folder, `true` for the latest one in
        `output_dir`, or `auto` for the latest one if there is any.

    Raises:
        `ValueError`: there is no such checkpoint, `output_dir` cannot be made or has one to train over,
            or the launcher started another number
            of processes than the Trainer sees.
    """
    log_level = training_args.get_process_log_level()
    if training_args.process_index > 0:
        # Every rank would repeat the warnings of the first.
        log_level = max(log_level, logging.ERROR)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", datefmt="%H:%M:%S", level=log_level)
    datasets.utils.logging.set_verbosity(log_level)
    transformers.utils.logging.set_verbosity(log_level)

    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if training_args.world_size != launched:
        raise ValueError(
            f"WORLD_SIZE={launched}, but the Trainer sees {training_args.world_size} process(es), so that each would "
            f"train on its own: start with `torchrun --standalone --nproc_per_node {launched}`."
        )
    if training_args.should_save:
        refuse_folders("output_dir", made_folder("output_dir", training_args.output_dir), OUTPUT_FILES)
        _refuse_strangers(training_args)
    # Also here, not only in the Trainer: the head of the model is drawn before there is a Trainer.
    if training_args.full_determinism:
        enable_full_determinism(training_args.seed)
    else:
        set_seed(training_args.seed)
    return _find_checkpoint(training_args)


def _refuse_strangers(training_args: TrainingArguments) -> None:
    """The host takes any folder that is called so for a checkpoint, and deletes it when it has as many as it keeps."""
    folders = Path(training_args.output_dir).glob(f"{PREFIX_CHECKPOINT_DIR}-*")
    strangers = sorted(folder.name for folder in folders if not CHECKPOINT.fullmatch(folder.name))
    if strangers and training_args.do_train and training_args.save_total_limit is not None:
        raise ValueError(
            f"output_dir={training_args.output_dir!r} has {', '.join(strangers)}, which save_total_limit="
            f"{training_args.save_total_limit} would delete as an old checkpoint: move or rename it."
        )


def _find_checkpoint(training_args: TrainingArguments) -> str | None:
    wanted = training_args.resume_from_checkpoint
    latest = get_last_checkpoint(training_args.output_dir) if os.path.isdir(training_args.output_dir) else None
    if wanted is None or str(wanted).lower() == "false":
        if latest is not None and training_args.do_train and not overwrites(training_args):
            raise ValueError(
                f"output_dir={training_args.output_dir!r} has a checkpoint, {Path(latest).name}, of an earlier run: "
                "go on with it by --resume_from_checkpoint auto, delete it and train anew by --overwrite_output_dir "
                "true, or give another output_dir."
            )
        return None
    if wanted == "auto" or (str(wanted).lower() == "true" and latest is not None):
        return latest
    if not os.path.isfile(os.path.join(wanted, "trainer_state.json")):
        raise ValueError(
            f"resume_from_checkpoint={wanted!r}: no such checkpoint; {training_args.output_dir!r} has "
            f"{latest or 'none'}. Leave the option out, or set it to 'auto' to start anew where there is none."
        )
    return wanted


def overwrites(training_args: TrainingArguments) -> bool:
    """Whether the checkpoints of an earlier run may go; without the option of the recipes they may not."""
    return getattr(training_args, "overwrite_output_dir", False)


def data_seed(training_args: TrainingArguments) -> int:
    """The seed of everything that chooses data: `data_seed`, else `seed`."""
    return training_args.seed if training_args.data_seed is None else training_args.data_seed


def refuse_random_weights(training_args: TrainingArguments, arguments: Any, *names: str) -> None:
    """
    Raises:
        `ValueError`: one of the options `names` of `arguments` draws new weights, which no training follows.
    """
    for name in names:
        if getattr(arguments, name) and not training_args.do_train:
            raise ValueError(f"{name}=True without do_train gives results of random weights: leave one of them out.")


def refuse_missing_weights(training_args: TrainingArguments, name: str, missing: Collection[str]) -> None:
    """
    Raises:
        `ValueError`: the model `name` has no values for the weights `missing`, and no training follows.
    """
    if missing and not training_args.do_train:
        raise ValueError(
            f"model_name_or_path={name!r}: has no weights {', '.join(sorted(missing))}, and without do_train the "
            "results would be those of random ones: give a model that was fine-tuned for this, or set do_train."
        )


def check_training(training_args: TrainingArguments, sam_config: SAMConfig, train: Dataset | None) -> None:
    """
    Raises:
        `ValueError`: there is not an example for each rank (or pair of ranks), or all of them would be left out.
    """
    if train is None or not training_args.do_train:
        return
    ranks = training_args.world_size
    shards = ranks // 2 if ranks > 1 and METHODS[sam_config.method].runs_in_pairs else ranks
    if len(train) < shards:
        raise ValueError(
            f"{len(train)} training example(s) for {ranks} ranks, which would read some of them more than once in an "
            "epoch: start fewer ranks (--nproc_per_node), or give more examples (data_dir, max_train_samples)."
        )
    batch = training_args.train_batch_size * shards
    if training_args.dataloader_drop_last and len(train) < batch:
        raise ValueError(
            f"dataloader_drop_last=True leaves all {len(train)} training examples out, since a batch has {batch}: "
            "leave it out, or choose a smaller per_device_train_batch_size."
        )


def check_evaluation(training_args: TrainingArguments, splits: dict[str, Dataset]) -> None:
    """
    Raises:
        `ValueError`: the evaluation would leave examples out and report the rest as the whole.
    """
    batch = training_args.eval_batch_size * training_args.world_size
    for suffix, split in splits.items():
        left_out = len(split) % batch
        if training_args.do_eval and training_args.dataloader_drop_last and left_out:
            raise ValueError(
                f"dataloader_drop_last=True leaves {left_out} of {len(split)} examples out of the evaluation"
                f"{f' ({suffix})' if suffix else ''}: choose a per_device_eval_batch_size that divides it, or "
                "evaluate in a run of its own."
            )


def average_micro_batches(trainer: Trainer) -> None:
    """
    Have the Trainer average the losses of micro-batches and of ranks. Classification heads accept `num_items_in_batch`
    and ignore it, so the Trainer would multiply loss and gradient by the number of both. For every method alike, or
    clipping and losses could not be compared.
    """
    trainer.model_accepts_loss_kwargs = False


class _Beginning(TrainerCallback):
    """Before it, the Trainer still makes an optimizer of the options and reads a checkpoint, and may refuse both."""

    def __init__(self, starts_anew: bool):
        self.is_over, self.starts_anew = False, starts_anew

    def on_train_begin(self, args, state, control, **kwargs):
        self.is_over = True
        if self.starts_anew and overwrites(args) and args.should_save:
            # Left there, they would count as newer than those of this run, which then would go in their place.
            for folder in Path(args.output_dir).glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
                if CHECKPOINT.fullmatch(folder.name):
                    shutil.rmtree(folder)


def train(trainer: Trainer, checkpoint: str | None = None) -> None:
    """Train; save the model, `train_results.json`, `all_results.json` and `trainer_state.json`."""
    beginning = _Beginning(starts_anew=checkpoint is None)
    trainer.add_callback(beginning)
    try:
        metrics = trainer.train(resume_from_checkpoint=checkpoint).metrics
    except Exception as error:
        error.at_work = beginning.is_over
        raise
    _save(trainer, metrics)


@is_at_work()
def _save(trainer: Trainer, metrics: dict[str, float]) -> None:
    metrics["train_samples"] = len(trainer.train_dataset)
    trainer.save_model()
    trainer.log_metrics("train", metrics)
    trainer.save_metrics("train", metrics)
    trainer.save_state()


@is_at_work()
def evaluate(trainer: Trainer, splits: dict[str, Dataset]) -> dict[str, float]:
    """
    Evaluate on every split; save `eval_results.json` and `all_results.json`.

    Args:
        splits (`dict[str, Dataset]`):
            Datasets by the suffix of their metrics: `{"": matched, "_mm": mismatched}` gives `eval_accuracy` and
            `eval_accuracy_mm`, as the transformers examples name them.

    Returns:
        `dict[str, float]`: the metrics of all splits.
    """
    together = {}
    for suffix, split in splits.items():
        # In the log under a prefix of their own, or the last split would stand there as the result.
        prefix = f"eval{suffix}"
        metrics = trainer.evaluate(eval_dataset=split, metric_key_prefix=prefix)
        metrics[f"{prefix}_samples"] = len(split)
        metrics = {_with_suffix(key, prefix, suffix): value for key, value in metrics.items()}
        trainer.log_metrics("eval", metrics)
        together.update(metrics)
    trainer.save_metrics("eval", together)
    return together


def _with_suffix(key: str, prefix: str, suffix: str) -> str:
    """`eval_mm_accuracy` as `eval_accuracy_mm`; `epoch`, which is no metric, gets the suffix too."""
    return f"eval{key.removeprefix(prefix)}{suffix}" if key.startswith(f"{prefix}_") else f"{key}{suffix}"


@is_at_work()
def share(trainer: SAMTrainer, **card: Any) -> None:
    """Write the model card (keyword arguments of `create_model_card`), and push when `push_to_hub` is set."""
    if trainer.args.push_to_hub:
        trainer.push_to_hub(**card)
    else:
        trainer.create_model_card(**card)
