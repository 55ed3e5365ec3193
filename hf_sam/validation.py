"""Combinations that cannot work, found before any training starts."""

import os
from collections.abc import Iterator
from typing import Any

from torch.nn import SyncBatchNorm

from .config import SAMConfig
from .lookahead import can_trial
from .methods import METHODS


# These step inside of the backward pass, so there is no gradient of a whole window to perturb with.
OPTIMIZERS_THAT_STEP_IN_BACKWARD = ("lomo", "adalomo")
LAYERWISE_SUFFIX = "_layerwise"
OPTIMIZERS_WITH_TRIAL_STEP = ("adamw_torch", "adamw_torch_fused")


def check_compatibility(trainer: Any, config: SAMConfig) -> None:
    """
    Raises:
        `ValueError`: two options exclude each other; the message names both and what to use instead.
    """
    for problem in _problems(trainer, config):
        raise ValueError(problem)


def _problems(trainer: Any, config: SAMConfig) -> Iterator[str]:
    method = METHODS[config.method]
    if method.is_stock:
        return
    named = f"SAMConfig.method={config.method!r}"
    args, accelerator = trainer.args, trainer.accelerator
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started > 1 and args.world_size == 1:
        yield (
            f"{named}: {started} processes were started (WORLD_SIZE), and TrainingArguments sees a single one, so "
            "each would train a model of its own: on a machine without an accelerator set use_cpu=True."
        )
    if trainer.is_fsdp_enabled:
        yield f"{named} cannot be combined with fsdp: use DistributedDataParallel (no fsdp option) or method='none'."
    if trainer.is_deepspeed_enabled:
        yield f"{named} cannot be combined with deepspeed: use DistributedDataParallel or method='none'."
    if getattr(trainer, "is_distributed_loading_by_transformers", False) or trainer.get_tp_size() > 1:
        yield f"{named} cannot be combined with a model sharded over ranks: load it whole, or use method='none'."
    optimizer_name = getattr(args.optim, "value", args.optim)
    if optimizer_name in OPTIMIZERS_THAT_STEP_IN_BACKWARD or optimizer_name.endswith(LAYERWISE_SUFFIX):
        yield (
            f"{named} cannot be combined with optim={optimizer_name!r}, which steps during the backward pass: use an "
            f"optimizer that steps from .grad, such as optim='{OPTIMIZERS_WITH_TRIAL_STEP[0]}', or method='none'."
        )
    ddp = accelerator.ddp_handler
    several_ranks = args.world_size > 1
    if config.ascent_scope == "micro_batch" and several_ranks and getattr(ddp, "gradient_as_bucket_view", False):
        yield (
            f"{named} with ascent_scope='micro_batch' cannot be combined with gradient_as_bucket_view=True of "
            "DistributedDataParallelKwargs: leave it False, or use ascent_scope='rank'."
        )
    unsynchronised = config.ascent_scope != "global" and not method.runs_in_pairs
    unsynchronised = unsynchronised or args.gradient_accumulation_steps > 1
    if several_ranks and getattr(args, "ddp_static_graph", False) and unsynchronised:
        yield (
            f"{named} with a pass that is not synchronised cannot be combined with ddp_static_graph=True, under which "
            "DDP expects every pass to be: leave it False, or use ascent_scope='global' without accumulation."
        )
    if method.needs_upcoming_window and generates_inputs(trainer):
        yield (
            f"{named} cannot be combined with {host_name(trainer)}, which generates its inputs with the weights that are "
            "trained, while this method looks at a window before its turn, at other weights: use method='sam'."
        )
    if method.needs_upcoming_window and config.lookahead == "optimizer":
        yield from _trial_step_problems(trainer, named, optimizer_name)
    if method.runs_in_pairs and several_ranks:
        yield from _pair_problems(trainer, named)


def generates_inputs(trainer: Any) -> bool:
    """Whether the host draws completions from the model while it trains, as trl's online trainers do."""
    return any(hasattr(trainer, name) for name in ("_generate_and_score_completions", "_buffered_inputs"))


def host_name(trainer: Any) -> str:
    """The class that the mixin stands in front of."""
    return next(cls.__name__ for cls in type(trainer).__mro__ if not cls.__module__.startswith("hf_sam")
                and "SAMTrainerMixin" not in {base.__name__ for base in cls.__mro__})


def _trial_step_problems(trainer: Any, named: str, optimizer_name: str) -> Iterator[str]:
    if trainer.optimizer is not None:
        known, what = can_trial(type(trainer.optimizer)), type(trainer.optimizer).__name__
    elif trainer.optimizer_cls_and_kwargs is not None:
        known, what = can_trial(trainer.optimizer_cls_and_kwargs[0]), trainer.optimizer_cls_and_kwargs[0].__name__
    else:
        known, what = optimizer_name in OPTIMIZERS_WITH_TRIAL_STEP, f"optim={optimizer_name!r}"
    if not known:
        yield (
            f"{named} with lookahead='optimizer' cannot be combined with {what}, whose trial step is not known: set "
            f"lookahead='gradient', or use one of {', '.join(OPTIMIZERS_WITH_TRIAL_STEP)}."
        )


def _pair_problems(trainer: Any, named: str) -> Iterator[str]:
    args, accelerator = trainer.args, trainer.accelerator
    if accelerator.dispatch_batches:
        yield (
            f"{named} on several ranks cannot be combined with dispatch_batches=True of accelerator_config, since the "
            "ranks of a pair are at different windows: set it to False or None."
        )
    if getattr(args, "train_sampling_strategy", None) == "batch_rebalance":
        yield (
            f"{named} on several ranks cannot be combined with train_sampling_strategy='batch_rebalance', which "
            "splits the data over all ranks by itself: use 'group_by_length'."
        )
    if getattr(accelerator.ddp_handler, "gradient_as_bucket_view", False):
        yield (
            f"{named} on several ranks cannot be combined with gradient_as_bucket_view=True of "
            "DistributedDataParallelKwargs, since it keeps gradients from one pass to the next: leave it False."
        )
    if any(isinstance(module, SyncBatchNorm) for module in trainer.model.modules()):
        yield (
            f"{named} on several ranks cannot be combined with SyncBatchNorm, since the ranks hold different weights "
            "and data: use BatchNorm."
        )
    hook = getattr(getattr(accelerator.ddp_handler, "comm_hook", None), "value", "no")
    if hook != "no":
        yield (
            f"{named} on several ranks cannot be combined with comm_hook={hook!r} of DistributedDataParallelKwargs, "
            "since it has a gradient exchange of its own: leave comm_hook at 'no'."
        )
