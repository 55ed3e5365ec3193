"""How a user's trainer class is put together: in goes a class, out comes why the mixin could not do its part."""

import inspect
from types import CodeType

from transformers import Trainer


def check_order_of_bases(cls: type, mixin: type) -> None:
    """
    Raises:
        `ValueError`: `cls` has a trainer in front of the mixin, which would take the mixin's arguments for its own.
    """
    order = cls.__mro__
    before = [
        base for base in order[: order.index(mixin)] if issubclass(base, Trainer) and not issubclass(base, mixin)
    ]
    if before:
        bases = ", ".join([mixin.__name__, *(base.__name__ for base in cls.__bases__ if base is not mixin)])
        raise ValueError(
            f"class {cls.__name__}: {mixin.__name__} comes after {before[0].__name__}, whose hooks would run "
            f"instead of its own: write class {cls.__name__}({bases})."
        )


def skips_mixin(trainer: Trainer, hook: str, mixin_hook: object) -> str | None:
    """
    The name of the class above the mixin whose `hook` leads nowhere: neither by `super()` nor by the name of another
    class's hook.

    Args:
        mixin_hook: the function that has to be reached.
    """
    for cls in type(trainer).__mro__:
        function = vars(cls).get(hook)
        if function is mixin_hook:
            return None
        code = getattr(inspect.unwrap(function), "__code__", None) if function is not None else None
        if code is not None and not {"super", hook} & _names(code):
            return cls.__name__
    return None


def host_of(trainer: Trainer, mixin_name: str = "SAMTrainerMixin") -> type:
    """The class that the mixin stands in front of."""
    names = [cls.__name__ for cls in type(trainer).__mro__]
    after = type(trainer).__mro__[names.index(mixin_name) + 1 :]
    return next(cls for cls in after if issubclass(cls, Trainer))


def generates_inputs(trainer: Trainer) -> str | None:
    """The host's name, if it draws completions from the model while it trains, as trl's online trainers do."""
    names = ("_generate_and_score_completions", "_buffered_inputs")
    return host_of(trainer).__name__ if any(hasattr(trainer, name) for name in names) else None


def generates_in_every_step(trainer: Trainer) -> str | None:
    """The same for a host whose step does not lead to Trainer's, and draws anew each time that it runs."""
    host = host_of(trainer)
    step = inspect.unwrap(host.training_step)
    own = step is not Trainer.training_step and not {"super", "training_step"} & _names(step.__code__)
    return host.__name__ if own and any(name.startswith("_generate") for name in _names(step.__code__)) else None


def _names(code: CodeType) -> set[str]:
    """All names that a function uses, also inside of functions in it."""
    names = {*code.co_names, *code.co_freevars}
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= _names(constant)
    return names
