"""An optimizer that may be stepped and is put back, bit for bit: what it keeps anywhere, not only in `state`."""

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from .weights import preserved_weights


@contextmanager
def preserved_optimizer(optimizer: Optimizer, weights: Iterable[Tensor]) -> Iterator[None]:
    """
    Whatever `optimizer` changes inside the block, it leaves it as it entered it, also after an exception: tensors with
    their old bits (8-bit ones and others that are made of several tensors included), numbers and anything else in its
    state, its `param_groups` and its own attributes, and the optimizers that it wraps. What a first step creates is
    gone again. Objects stay the same ones. Hooks of steps, global ones too, are not called inside of the block.

    Args:
        optimizer (`torch.optim.Optimizer`): any; one that wraps others takes them along.
        weights (`Iterable[Tensor]`): the caller puts these back, and they are not copied here.
    """
    contents = _Contents(optimizer, weights)
    hooks: list[dict] = [_global_optimizer_pre_hooks, _global_optimizer_post_hooks]
    for each in contents.optimizers:
        # A wrapper may do without the constructor of its base class.
        hooks += [getattr(each, f"_optimizer_step_{when}_hooks", {}) for when in ("pre", "post")]
    for registered in hooks:
        contents.visit(registered, inside=False)
    with preserved_weights(contents.tensors):
        try:
            for registered in hooks:
                registered.clear()
            yield
        finally:
            contents.put_back()


class _Contents:
    """Everything that a step may change: the tensors, which the caller copies, and what containers hold."""

    def __init__(self, optimizer: Optimizer, weights: Iterable[Tensor]):
        self.tensors: list[Tensor] = []
        self.optimizers: list[Optimizer] = []
        self._containers: list[tuple[Any, list]] = []
        self._generators: list[tuple[torch.Generator, Tensor]] = []
        self._seen = {id(weight) for weight in weights}
        self._package = _package(optimizer)
        self.visit(optimizer.state, inside=True)
        self.visit(optimizer.param_groups, inside=True)
        self.visit(optimizer, inside=False)

    def visit(self, value: Any, inside: bool) -> None:
        """`inside`: of the state or a group. Elsewhere an object of another package is not the optimizer's own."""
        if id(value) in self._seen:
            return
        self._seen.add(id(value))
        parts: Iterable = ()
        if isinstance(value, Tensor):
            # One that is made of several, such as codes and scales, knows their names.
            names = value.__tensor_flatten__()[0] if hasattr(value, "__tensor_flatten__") else ()
            parts = [getattr(value, name) for name in names]
            if not parts:
                self.tensors.append(value)
        elif isinstance(value, dict):
            self._containers.append((value, list(value.items())))
            parts = list(value.values())
        elif isinstance(value, (list, set, deque)):
            self._containers.append((value, list(value)))
            parts = list(value)
        elif isinstance(value, (tuple, frozenset)):
            parts = value
        elif isinstance(value, torch.Generator):
            self._generators.append((value, value.get_state()))
        elif self._has_own_attributes(value, inside):
            if isinstance(value, Optimizer):
                self.optimizers.append(value)
            parts = [vars(value)]
        for part in parts:
            self.visit(part, inside)

    def _has_own_attributes(self, value: Any, inside: bool) -> bool:
        if not hasattr(value, "__dict__") or isinstance(value, (type, ModuleType, nn.Module)):
            return False
        return inside or isinstance(value, Optimizer) or _package(value) == self._package

    def put_back(self) -> None:
        for container, before in self._containers:
            container.clear()
            if isinstance(container, (dict, set)):
                container.update(before)
            else:
                container.extend(before)
        for generator, state in self._generators:
            generator.set_state(state)


def _package(value: Any) -> str:
    return type(value).__module__.partition(".")[0]
