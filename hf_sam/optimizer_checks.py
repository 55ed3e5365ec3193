"""Optimizers, and gradients for them, that no method but the stock one can work with."""

import inspect
from collections.abc import Iterator
from typing import Any

from torch import nn


STEP_IN_BACKWARD = {"Lomo", "AdaLomo", "LayerWiseDummyOptimizer"}


def optimizer_problems(trainer: Any, named: str, trial_step_on_some_ranks: bool) -> Iterator[str]:
    """
    Args:
        trainer (`~transformers.Trainer`): its model, and the optimizer or the class of one that the user has passed.
        named (`str`): how messages name the method.
        trial_step_on_some_ranks (`bool`): one rank of each pair steps the optimizer to find the lookahead weights.
    """
    optimizer_class = _class_of_optimizer(trainer)
    names = {each.__name__ for each in optimizer_class.__mro__}
    refusal = f"{named} cannot be combined with {optimizer_class.__name__}"
    instead = "use an optimizer that steps from .grad, such as optim='adamw_torch', or method='none'."
    if names & STEP_IN_BACKWARD:
        yield f"{refusal}, which steps during the backward pass: {instead}"
    if _needs_closure(optimizer_class):
        yield f"{refusal}, whose step() needs a closure, which the training loop does not pass: {instead}"
    if "SparseAdam" in names:
        yield f"{refusal}, which takes sparse gradients only: {instead}"
    if "ZeroRedundancyOptimizer" in names and trial_step_on_some_ranks:
        yield (
            f"{refusal} and lookahead='optimizer' on several ranks, since its step waits for all ranks, and only one "
            "of each pair takes the trial step: set lookahead='gradient'."
        )
    for name, module in trainer.model.named_modules():
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) and module.sparse:
            yield (
                f"{named} cannot be combined with sparse=True of {name or 'the model'} ({type(module).__name__}), "
                "since it needs the norm of all gradients: set sparse=False, or use method='none'."
            )


def _class_of_optimizer(trainer: Any) -> type:
    """`object` where `TrainingArguments.optim` names it, or a function makes it."""
    if trainer.optimizer is not None:
        return type(trainer.optimizer)
    maker, _ = trainer.optimizer_cls_and_kwargs or (object, {})
    return maker if isinstance(maker, type) else object


def _needs_closure(optimizer_class: type) -> bool:
    step = getattr(optimizer_class, "step", None)
    if step is None:  # There is none here, or it is a factory of optimizers.
        return False
    _, *arguments = inspect.signature(step).parameters.values()
    by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return any(argument.kind in by_position and argument.default is argument.empty for argument in arguments)
