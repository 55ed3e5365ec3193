"""YAML files of recipes and of studies. Knows no options, and is quick to import."""

from pathlib import Path
from typing import Any

import yaml


# In a file, what it stands on top of.
BASE_KEY = "base"
# How a file says that an option has its default.
NO_VALUE = ("null", "~", "")


def read_mapping(path: Path) -> dict[str, Any]:
    """
    What stands in a YAML file, every scalar as it is written.

    Raises:
        `ValueError`: the file is not there, is no YAML mapping, or repeats a key.
    """
    # BaseLoader keeps every scalar as it is written; YAML's own types would turn `no` into False.
    try:
        text = path.read_text(encoding="utf-8")
        node, values = yaml.compose(text, Loader=yaml.BaseLoader), yaml.load(text, Loader=yaml.BaseLoader)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}).") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: not a YAML file: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path}: must hold lines of the form `option: value`.")
    names = [key.value for key, _ in node.value]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"{path}: {', '.join(repeated)} given more than once.")
    return values
