"""Combinations that cannot work, found before training: in go a trainer and its options, out comes an error.

Most stand with the method or the perturbation that they are about. Here are those that no method works with.
"""

import os
from collections.abc import Iterator
from typing import Any

from .ascent_losses import ASCENT_LOSSES, DEFAULT_ASCENT_LOSS
from .components import Conflict
from .config import SAMConfig
from .host_classes import generates_in_every_step, generates_inputs, skips_mixin
from .methods import METHODS
from .optimizer_checks import CONFLICTS as OPTIMIZER_CONFLICTS
from .perturbations import PERTURBATIONS
from .setting import Setting


CONFLICTS = (
    Conflict(
        option="fsdp",
        found=lambda s: s.trainer.is_fsdp_enabled,
        instead="use DistributedDataParallel (no fsdp option) or method='none'",
    ),
    Conflict(
        option="deepspeed",
        found=lambda s: s.trainer.is_deepspeed_enabled,
        instead="use DistributedDataParallel or method='none'",
    ),
    Conflict(
        option="a model sharded over ranks",
        found=lambda s: (
            getattr(s.trainer, "is_distributed_loading_by_transformers", False) or s.trainer.get_tp_size() > 1
        ),
        instead="load it whole, or use method='none'",
    ),
    *OPTIMIZER_CONFLICTS,
    Conflict(
        option="the training_step of {}",
        found=lambda s: s.training_step and skips_mixin(s.trainer, "training_step", s.training_step),
        why="which does not call super().training_step, so that nothing would be perturbed",
        instead="call it there, or put the class behind SAMTrainerMixin, or use method='none'",
    ),
    Conflict(
        option="{}",
        found=lambda s: generates_in_every_step(s.trainer),
        why="whose training_step draws other inputs each time that it runs",
        instead="use a host that prepares them in _prepare_inputs, or method='none'",
    ),
    Conflict(
        option="{}",
        found=lambda s: s.config.ascent_fraction < 1 and generates_inputs(s.trainer),
        why="which would generate other inputs for a part of the window",
        instead="leave ascent_fraction at 1",
        under="with ascent_fraction below 1",
    ),
)


def check_compatibility(trainer: Any, config: SAMConfig, training_step: Any = None) -> None:
    """
    Args:
        training_step (`Callable`, *optional*): the mixin's, which the class of the trainer has to reach.

    Raises:
        `ValueError`: two options exclude each other; the message names both and what to use instead.
    """
    for problem in _problems(Setting(trainer, config, training_step)):
        raise ValueError(problem)


def _problems(setting: Setting) -> Iterator[str]:
    config = setting.config
    method, perturbation = METHODS[config.method], PERTURBATIONS[config.perturbation]
    if method.is_stock:
        return
    named = f"SAMConfig.method={config.method!r}"
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started > 1 and not setting.several_ranks:
        yield (
            f"{named}: {started} processes were started (WORLD_SIZE), and TrainingArguments sees a single one, so "
            "each would train a model of its own: on a machine without an accelerator set use_cpu=True."
        )
    for conflict in (*CONFLICTS, *method.conflicts):
        if value := conflict.found(setting):
            yield conflict.message(named, value)
    for conflict in perturbation.conflicts:
        if value := conflict.found(setting):
            yield conflict.message(f"SAMConfig.perturbation={config.perturbation!r}", value)
    yield from _problems_of_ascent(setting)


def _problems_of_ascent(setting: Setting) -> Iterator[str]:
    """Where the ascent gradient is to be that of a part of the window, or of another loss."""
    config = setting.config
    fraction, loss = (
        f"SAMConfig.ascent_fraction={config.ascent_fraction}",
        f"SAMConfig.ascent_loss={config.ascent_loss!r}",
    )
    chosen = [fraction] * (config.ascent_fraction < 1) + [loss] * (config.ascent_loss != DEFAULT_ASCENT_LOSS)
    for named in chosen:
        if not METHODS[config.method].ascent_may_differ:
            yield (
                f"{named} cannot be combined with method={config.method!r}, which uses its ascent gradient for more "
                f"than the perturbation: use method='sam', or leave it out."
            )
        if not PERTURBATIONS[config.perturbation].needs_gradient:
            yield (
                f"{named} cannot be combined with perturbation={config.perturbation!r}, which needs no ascent "
                "gradient: leave it out."
            )
    for conflict in ASCENT_LOSSES[config.ascent_loss].conflicts:
        if value := conflict.found(setting):
            yield conflict.message(loss, value)
