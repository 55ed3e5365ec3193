"""Optimizers, and gradients for them, that no method but the stock one can work with: in goes a setting, out comes
the name of what excludes it.
"""

import inspect

from torch import nn

from .components import Conflict
from .setting import Setting


# These step inside of the backward pass, so there is no gradient of a whole window to perturb with.
STEP_IN_BACKWARD = {"Lomo", "AdaLomo", "LayerWiseDummyOptimizer"}
NAMED_STEP_IN_BACKWARD = ("lomo", "adalomo")
LAYERWISE_SUFFIX = "_layerwise"

# Those that keep AdamW's moments under its names, for what reads them.
WITH_MOMENTS = ("adamw_torch", "adamw_torch_fused")

INSTEAD = "use an optimizer that steps from .grad, such as optim='adamw_torch', or method='none'"


def class_names(setting: Setting) -> set[str]:
    """Of the optimizer that the user brought and of all that it derives from."""
    brought = setting.optimizer_class
    return {each.__name__ for each in brought.__mro__} if isinstance(brought, type) else set()


def without_moments(setting: Setting) -> str | None:
    """The optimizer, where it is not known to keep AdamW's moving averages, `exp_avg` and `exp_avg_sq`."""
    if setting.optimizer_class is None:
        return None if setting.optimizer_name in WITH_MOMENTS else f"optim={setting.optimizer_name!r}"
    known = class_names(setting) & {"Adam", "AdamW"}
    return None if known else getattr(setting.optimizer_class, "__name__", repr(setting.optimizer_class))


def _steps_in_backward(setting: Setting) -> str | None:
    if class_names(setting) & STEP_IN_BACKWARD:
        return setting.optimizer_class.__name__
    if setting.optimizer_class is not None:
        return None
    name = setting.optimizer_name
    layerwise = name in NAMED_STEP_IN_BACKWARD or name.endswith(LAYERWISE_SUFFIX)
    return f"optim={name!r}" if layerwise else None


def _needs_closure(setting: Setting) -> str | None:
    step = getattr(setting.optimizer_class, "step", None)
    if step is None:  # There is none here, or it is a factory of optimizers.
        return None
    _, *arguments = inspect.signature(step).parameters.values()
    by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    needed = any(argument.kind in by_position and argument.default is argument.empty for argument in arguments)
    return setting.optimizer_class.__name__ if needed else None


def _sparse_module(setting: Setting) -> str | None:
    for name, module in setting.model.named_modules():
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) and module.sparse:
            return f"sparse=True of {name or 'the model'} ({type(module).__name__})"
    return None


CONFLICTS = (
    Conflict(
        option="{}", found=_steps_in_backward, why="which steps during the backward pass", instead=INSTEAD, kind="LOMO"
    ),
    Conflict(
        option="{}",
        found=_needs_closure,
        why="whose step() needs a closure, which the training loop does not pass",
        instead=INSTEAD,
        kind="LBFGS",
    ),
    Conflict(
        option="{}",
        found=lambda s: "SparseAdam" in class_names(s) and s.optimizer_class.__name__,
        why="which takes sparse gradients only",
        instead=INSTEAD,
        kind="SparseAdam",
    ),
    Conflict(
        option="{}",
        found=_sparse_module,
        why="since it needs the norm of all gradients",
        instead="set sparse=False, or use method='none'",
        kind="an embedding with sparse=True",
    ),
)
