"""Options of one method or perturbation: in go a dataclass and what a user wrote, out comes an instance, or one error.

Users write them as `method_args={...}` and `perturbation_args={...}`: in Python, as a mapping in YAML, or as JSON on a
command line, as `lr_scheduler_kwargs` of `TrainingArguments`.
"""

import difflib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any, get_args, get_type_hints

from huggingface_hub.dataclasses import type_validator


@dataclass(frozen=True)
class NoOptions:
    """For a method or perturbation that has no options of its own."""


def option(
    default: Any,
    help: str,
    *,
    lower: float = -math.inf,
    upper: float = math.inf,
    choices: Iterable[Any] = (),
) -> Any:
    """
    A field of an options dataclass, with what is allowed and what the documentation says of it.

    Args:
        default: the value where the user gives none.
        help (`str`): symbol in the paper, meaning, unit, and where the default comes from.
        lower, upper (`float`, *optional*): bounds of a number, both allowed.
        choices (`Iterable`, *optional*): the only values that are allowed.
    """
    metadata = {"help": help, "lower": lower, "upper": upper, "choices": tuple(choices)}
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def read_options(owner: str, options_class: type, values: Mapping[str, Any] | str | None) -> Any:
    """
    An instance of `options_class`.

    Args:
        owner (`str`): what messages call the place of the options, such as `"SAMConfig.method_args"`.
        options_class (`type`): a dataclass of fields made with [`option`].
        values (`Mapping`, `str` or `None`): by name; a mapping as JSON; or nothing.

    Raises:
        `ValueError`: no mapping, an unknown name (the message has the nearest known one), a value of another type or
            outside of what is allowed, or what the dataclass itself refuses.
    """
    values = read_mapping(owner, values)
    known = {entry.name: entry for entry in fields(options_class)}
    hints = get_type_hints(options_class)
    read = {}
    for name, value in values.items():
        if name not in known:
            raise ValueError(f"{owner}: unknown option {name!r}; {nearest(name, known)}")
        read[name] = _checked(f"{owner}[{name!r}]", known[name], hints[name], value)
    try:
        return options_class(**read)
    except ValueError as error:
        raise ValueError(f"{owner}: {error}") from error


def read_mapping(owner: str, values: Mapping[str, Any] | str | None) -> dict[str, Any]:
    """A plain dictionary of what may be a mapping, its JSON, or nothing; `ValueError` for anything else."""
    if isinstance(values, str):
        try:
            values = json.loads(values) if values.strip() else None
        except json.JSONDecodeError as error:
            raise ValueError(f"{owner}={values!r}: not JSON ({error}); write it as '{{\"name\": value}}'.") from error
    if values is None:
        return {}
    if not isinstance(values, Mapping) or not all(isinstance(name, str) for name in values):
        raise ValueError(f"{owner}={values!r}: must be a mapping of option names to values.")
    return dict(values)


def nearest(name: Any, known: Iterable[str]) -> str:
    """Advice on an unknown name: the nearest known one, and all of them."""
    known = list(known)
    if not known:
        return "there are none to set."
    matches = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    meant = f"did you mean {matches[0]!r}? " if matches else ""
    return f"{meant}There are {', '.join(map(repr, known))}."


def _checked(place: str, entry: Field, expected: Any, value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool) and expected in (float, float | None):
        value = float(value)
    try:
        type_validator(entry.name, value, expected)
    except TypeError:
        wanted = str(expected) if get_args(expected) else expected.__name__
        raise ValueError(f"{place}={value!r}: must be of type {wanted}, not {type(value).__name__}.") from None
    limits = entry.metadata
    if limits.get("choices") and value not in limits["choices"]:
        raise ValueError(f"{place}={value!r}: must be one of {', '.join(map(repr, limits['choices']))}.")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        lower, upper = limits.get("lower", -math.inf), limits.get("upper", math.inf)
        if not lower <= value <= upper:
            raise ValueError(f"{place}={value!r}: must be {_range(lower, upper)}.")
    return value


def _range(lower: float, upper: float) -> str:
    if upper == math.inf:
        return f"a number >= {lower:g}" if lower > -math.inf else "a number"
    return f"a number from {lower:g} to {upper:g}" if lower > -math.inf else f"a number <= {upper:g}"
