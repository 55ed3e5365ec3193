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
    """

    def __init__(self, trainer: Any, config: Any):
        self.trainer, self.config = trainer, config

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
        if self.trainer.optimizer is not None:
            return type(self.trainer.optimizer)
        given = self.trainer.optimizer_cls_and_kwargs
        return None if given is None else given[0]

    def ddp_option(self, name: str) -> Any:
        """An attribute of `DistributedDataParallelKwargs`, where there are several ranks and the user set one."""
        return getattr(self.accelerator.ddp_handler, name, None) if self.several_ranks else None
