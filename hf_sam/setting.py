"""What a run is set to, as conflicts look at it: in go a trainer and its options, out come the values that exclude
each other.
"""

from functools import cached_property
from typing import Any

from torch.nn import Module
from torch.optim import Optimizer


class Setting:
    """
    Args:
        trainer ([`~transformers.Trainer`]): constructed, not trained.
        config ([`SAMConfig`]): its options.
        training_step (`Callable`, *optional*): the mixin's.
    """

    def __init__(self, trainer: Any, config: Any, training_step: Any = None):
        self.trainer, self.config, self.training_step = trainer, config, training_step

    @property
    def args(self) -> Any:
        """The `TrainingArguments`."""
        return self.trainer.args

    @property
    def accelerator(self) -> Any:
        return self.trainer.accelerator

    @property
    def model(self) -> Module:
        return self.trainer.model

    @property
    def several_ranks(self) -> bool:
        return self.args.world_size > 1

    @property
    def accumulates(self) -> bool:
        return self.args.gradient_accumulation_steps > 1

    @cached_property
    def optimizer_name(self) -> str:
        """`TrainingArguments.optim`."""
        return getattr(self.args.optim, "value", self.args.optim)

    @cached_property
    def optimizer_class(self) -> type[Optimizer] | None:
        """The class of an optimizer that the user brought, as an instance or as a class; else `None`."""
        optimizer = self.trainer.optimizer
        if optimizer is not None:
            # A run that has begun has wrapped it.
            return type(getattr(optimizer, "optimizer", optimizer))
        given = self.trainer.optimizer_cls_and_kwargs
        return None if given is None else given[0]

    @property
    def weights_beside_model(self) -> bool:
        """Whether a loss with weights of its own is trained, beside the model (sentence-transformers)."""
        losses = getattr(self.trainer, "loss", None)
        losses = losses.values() if isinstance(losses, dict) else [losses]
        ours = set(self.model.parameters())
        return any(w not in ours for loss in losses if isinstance(loss, Module) for w in loss.parameters())

    def ddp_option(self, name: str) -> Any:
        """An attribute of `DistributedDataParallelKwargs`, where there are several ranks and the user set one."""
        return getattr(self.accelerator.ddp_handler, name, None) if self.several_ranks else None
