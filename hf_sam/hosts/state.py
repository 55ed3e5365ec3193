"""What a host counts and collects in its training step: in goes a trainer, out comes a state that can be put back, the
change that a pass made, and that change made later, or on another rank.

Numbers, small tensors and the containers of both that are attributes of the trainer (trl's `_metrics` and
`_total_train_tokens`, GRPO's `_step`, the loss components of sentence-transformers) and the numbers of its `state`. An
attribute of any other kind is kept as the object that it is.
"""

import copy
from collections import Counter, OrderedDict, defaultdict, deque
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


MAPPINGS = (dict, defaultdict, OrderedDict, Counter)
SEQUENCES = (list, deque, set)
# A larger tensor is data, which is replaced and not written over.
SMALL = 2**16
# Data, and what hf_sam moves and counts by itself.
NOT_COLLECTED = frozenset(
    {"train_dataset", "eval_dataset", "accelerator", "current_flos", "current_gradient_accumulation_steps"}
)


class HostState:
    """What `trainer` has counted and collected up to now."""

    def __init__(self, trainer: Any):
        self._places = [vars(trainer), vars(trainer.state)]
        attributes, counters = self._places
        self._saved = [
            {name: _save(value) for name, value in attributes.items() if name not in NOT_COLLECTED},
            {name: value for name, value in counters.items() if _is_number(value)},
        ]

    def put_back(self) -> None:
        """All is as it was when this object was made. What has been added to the trainer since stays."""
        attributes, counters = self._saved
        for name, saved in attributes.items():
            self._places[0][name] = _put_back(saved)
        self._places[1].update(counters)

    def changes(self) -> list[dict[str, "Change"]]:
        """What has been done since, as `make_changes` takes it."""
        return [
            {
                name: change
                for name, value in place.items()
                if name not in NOT_COLLECTED and (name in saved or place is self._places[0])
                if (change := _change(saved.get(name), value)) is not None
            }
            for saved, place in zip(self._saved, self._places, strict=True)
        ]


def make_changes(trainer: Any, changes: list[dict[str, "Change"]]) -> None:
    """Do to `trainer` what [`HostState`] saw happen."""
    for place, changed in zip((vars(trainer), vars(trainer.state)), changes, strict=True):
        for name, change in changed.items():
            place[name] = _changed(place.get(name), change)


def copy_containers(value: Any) -> Any:
    """The same tensors in containers of their own, since a host may take labels out of its inputs."""
    if isinstance(value, dict):
        copied = value.copy()
        copied.update((key, copy_containers(one)) for key, one in value.items())
        return copied
    if type(value) is list:
        return [copy_containers(one) for one in value]
    return value.copy() if hasattr(value, "copy") and hasattr(value, "keys") else value


# ---- one value ----


@dataclass(frozen=True)
class _Saved:
    """A value, what was in it, and for a tensor how often it had been written to."""

    value: Any
    content: Any
    version: int = 0


@dataclass(frozen=True)
class Change:
    """`kind`: "add" a number, "extend" a sequence, "set" a value, or "within" a mapping."""

    kind: str
    value: Any


def _save(value: Any) -> Any:
    if type(value) in MAPPINGS:
        return _Saved(value, {key: _save(one) for key, one in value.items()})
    if type(value) in SEQUENCES:
        return _Saved(value, list(value))
    if _is_small(value):
        return _Saved(value, value.clone(), value._version)
    return value


def _put_back(saved: Any) -> Any:
    if not isinstance(saved, _Saved):
        return saved
    value, content = saved.value, saved.content
    if type(value) in MAPPINGS:
        before = {key: _put_back(one) for key, one in content.items()}
        value.clear()
        value.update(before)
    elif type(value) in SEQUENCES:
        value.clear()
        value.update(content) if type(value) is set else value.extend(content)
    elif value._version != saved.version:
        with torch.no_grad():
            value.copy_(content)
    return value


def _change(saved: Any, value: Any) -> Change | None:
    old, content = (saved.value, saved.content) if isinstance(saved, _Saved) else (saved, saved)
    if type(value) in MAPPINGS:
        before = content if type(old) in MAPPINGS else {}
        within = {key: one for key in value if (one := _change(before.get(key), value[key])) is not None}
        return Change("within", within) if within else None
    if type(value) is list:
        before = content if type(old) is list else []
        grown = len(value) >= len(before) and all(a is b for a, b in zip(before, value, strict=False))
        if grown:
            return Change("extend", value[len(before) :]) if len(value) > len(before) else None
        return Change("set", list(value))
    if type(value) in SEQUENCES:
        return Change("set", value.copy()) if old is None or list(value) != content else None
    if _is_number(value):
        added = value - (old if _is_number(old) else 0)
        return Change("add", added) if added else None
    if _is_small(value):
        if torch.is_tensor(content) and content.shape == value.shape:
            unchanged = value is old and value._version == saved.version
            return None if unchanged else Change("add", value.detach() - content)
        return Change("add", value.detach().clone())
    is_plain = value is None or isinstance(value, (bool, str, Tensor))
    return Change("set", value) if is_plain and value is not old else None


def _changed(value: Any, change: Change) -> Any:
    if change.kind == "within":
        value = {} if value is None else value
        for key, one in change.value.items():
            value[key] = _changed(value.get(key), one)
        return value
    if change.kind == "extend":
        value = [] if value is None else value
        value.extend(change.value)
        return value
    if change.kind == "add" and value is not None:
        return value + change.value
    # The host may write over it, and the change may have to be told to another rank.
    return change.value.clone() if torch.is_tensor(change.value) else copy.copy(change.value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_small(value: Any) -> bool:
    is_data = isinstance(value, Tensor) and not value.requires_grad and not value.is_inference()
    return is_data and value.numel() <= SMALL
