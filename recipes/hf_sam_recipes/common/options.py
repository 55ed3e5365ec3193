"""Options of a recipe: YAML files and the command line, parsed by one parser, with unknown names reported at once."""

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from transformers import HfArgumentParser

from .mappings import BASE_KEY, NO_VALUE, read_mapping
from .names import did_you_mean
from .parser import refuse_repeated, unknown_option


MOST_CHOICES = 20  # that are told
RECIPE_SUFFIXES = (".yaml", ".yml")


class RecipeParser(HfArgumentParser):
    """
    `HfArgumentParser` for recipes: no abbreviated options (a typo must not match another option), and an error is a
    `ValueError` of one line instead of an exit after two hundred lines of usage.
    """

    def __init__(self, dataclass_types: Sequence[type]):
        super().__init__(dataclass_types, allow_abbrev=False)
        self.option_names = {option.name for dtype in self.dataclass_types for option in fields(dtype) if option.init}

    @property
    def required_names(self) -> list[str]:
        """Options without a default."""
        return [action.dest for action in self._actions if action.required]

    def error(self, message: str):
        # An option has two spellings, and some have dozens of choices.
        message = re.sub(r"^argument (--\w+)/--[\w/-]+:", r"argument \1:", message)
        if wrong := re.fullmatch(r"(argument --\w+: invalid choice: )'(.*)' \(choose from (.*)\)", message):
            known = [name.strip(" '") for name in wrong[3].split(",")]
            if len(known) > MOST_CHOICES:
                message = (
                    f"{wrong[1]}{wrong[2]!r}; {did_you_mean(wrong[2], known)}--help has all {len(known)} choices."
                )
        raise ValueError(message)

    def unknown(self, name: str, where: str) -> ValueError:
        """The error for an unknown option, with the nearest known name."""
        return unknown_option(name, self.option_names, where)


def parse_recipe(dataclass_types: Sequence[type], args: Sequence[str] | None = None) -> tuple[Any, ...]:
    """
    Parse `[recipe.yaml ...] [--option value ...]` into one instance of each dataclass.

    The command line beats the YAML files, a later file beats an earlier one, and a file beats its `base`. Values in a
    file are read exactly as if they stood on the command line (`2e-5` is a number, `no` is the word), lists become
    several values, and `null` means the default of the option.

    Args:
        dataclass_types (`Sequence[type]`):
            Dataclasses whose fields are the options, for example `(GlueArguments, TrainingArguments, SAMConfig)`.
        args (`Sequence[str]`, *optional*, defaults to `sys.argv[1:]`):
            The command line.

    Raises:
        `ValueError`: a file is missing or malformed, an option is unknown (the message has the nearest known name), or
            a value has the wrong type.
    """
    args = list(sys.argv[1:] if args is None else args)
    recipes = []
    while args and args[0].endswith(RECIPE_SUFFIXES):
        recipes.append(Path(args.pop(0)))

    refuse_repeated(args)
    parser = RecipeParser(dataclass_types)
    values: dict[str, Any] = {}
    for recipe in recipes:
        values.update(read_recipe(recipe, parser))

    arguments = [*as_arguments(values), *args]
    try:
        *parsed, extra = parser.parse_args_into_dataclasses(
            arguments, return_remaining_strings=True, look_for_args_file=False
        )
    except json.JSONDecodeError as error:
        raise _not_json(arguments, error) from error
    except ImportError as error:
        # `TrainingArguments` looks for the package of deepspeed and the like; its message has further lines.
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"an option needs a package that is not installed: {reason}") from error
    if extra:
        if extra[0].endswith(RECIPE_SUFFIXES):
            raise ValueError(f"{extra[0]}: recipe files stand before the first --option.")
        if not extra[0].startswith("--"):
            raise ValueError(f"{extra[0]}: unexpected value; expected [recipe.yaml ...] [--option value ...].")
        raise parser.unknown(extra[0].lstrip("-").split("=")[0].replace("-", "_"), where="command line")
    return tuple(parsed)


def _not_json(arguments: list[str], error: json.JSONDecodeError) -> ValueError:
    """`TrainingArguments` does not say to which option it could not read the value."""
    value = error.doc
    joined = [argument.removesuffix(f"={value}") for argument in arguments if argument.endswith(f"={value}")]
    option = joined[-1] if joined else arguments[arguments.index(value) - 1] if value in arguments else "command line"
    return ValueError(f"{option}: {value!r} is not JSON: {error.msg} at character {error.pos}.")


def read_recipe(path: Path, parser: RecipeParser, _above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """
    The options in a YAML file, on top of those in the files that its `base` names (relative to the file; a later base
    beats an earlier one).

    Raises:
        `ValueError`: the file is missing, is no mapping of options, has an unknown or repeated option, or is its own
            base.
    """
    path = path.resolve()
    if path in _above:
        raise ValueError(f"{path}: the file is its own {BASE_KEY}, by way of {_above[-1]}.")
    if not path.is_file():
        there = sorted(entry.name for entry in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        raise ValueError(f"{path}: no such recipe file; the folder has: {', '.join(there) or 'no recipe'}.")
    own = read_mapping(path)
    bases = own.pop(BASE_KEY, [])
    for name in own:
        if name not in parser.option_names:
            raise parser.unknown(name, where=str(path))

        if isinstance(own[name], list) and not all(isinstance(entry, str) for entry in own[name]):
            raise ValueError(f"{path}: {name} must be a list of values, or a mapping, without lists in it.")

    values: dict[str, Any] = {}
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise ValueError(f"{path}: {BASE_KEY} {bases!r} must be the path of a file, or a list of them.")
    for base in bases:
        values.update(read_recipe(path.parent / base, parser, (*_above, path)))
    values.update(own)
    return values


def as_arguments(values: dict[str, Any]) -> list[str]:
    """The command line that says the same as a file with these values."""
    arguments = []
    for name, value in values.items():
        if value in NO_VALUE:
            continue
        if isinstance(value, list):
            arguments += [f"--{name}", *value]
        else:
            # With "=", a value that starts with a minus sign is not taken for an option.
            arguments.append(f"--{name}={json.dumps(_typed(value)) if isinstance(value, dict) else value}")
    return arguments


def _typed(value: Any) -> Any:
    # Inside of a mapping no option tells the type, so it is read off the spelling, as in JSON on the command line.
    if isinstance(value, dict):
        return {key: _typed(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_typed(entry) for entry in value]
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value
