"""The file of a method's state: in go tensors by name, out come the same ones, or what is wrong with them.

A run that went on with another state, or without it, would end with other weights, and nobody would notice.
"""

import json
import logging
import os
from collections.abc import Collection

import safetensors
import safetensors.torch
from torch import Tensor

from .contents import FileError, naming_files
from .manifest import MANIFEST_NAME


logger = logging.getLogger(__name__)

SAM_CONFIG_NAME = "sam_config.json"
SAM_STATE_NAME = "sam_state.safetensors"
COUNT = "tensors"


def write_state(checkpoint: str, state: dict[str, Tensor]) -> None:
    """No file if there is nothing to keep, also where the run of before has left one."""
    path = os.path.join(checkpoint, SAM_STATE_NAME)
    if state:
        tensors = {name: value.contiguous() for name, value in state.items()}
        safetensors.torch.save_file(tensors, path, metadata={COUNT: str(len(tensors))})
    elif os.path.isfile(path):
        os.remove(path)


def read_state(
    checkpoint: str, method: str, weights: dict[str, Tensor], stepped: Collection[str], may_overflow: bool
) -> dict[str, Tensor]:
    """
    Args:
        checkpoint (`str`): a whole checkpoint.
        method (`str`): the method that goes on, one that keeps a state.
        weights (`dict[str, Tensor]`): name -> trainable weight.
        stepped (`Collection[str]`): the names of those that the optimizer has stepped.
        may_overflow (`bool`): under fp16 a state may be infinite, which the method knows.

    Returns:
        `dict[str, Tensor]`: empty if the method had no state when the checkpoint was written.

    Raises:
        `ValueError`: the file is missing, cannot be read, is empty, or does not fit the weights.
    """
    path = os.path.join(checkpoint, SAM_STATE_NAME)
    if not os.path.isfile(path):
        _explain_absence(checkpoint, method)
        return {}
    with naming_files(checkpoint, SAM_STATE_NAME):
        with safetensors.safe_open(path, framework="pt") as file:
            written = (file.metadata() or {}).get(COUNT)
        state = safetensors.torch.load_file(path)
    problem = _problem(state, written, weights, stepped, may_overflow)
    if problem:
        raise FileError(
            f"{path}: {problem}. With it, the run would silently go on otherwise: resume from another checkpoint."
        )
    return state


def _explain_absence(checkpoint: str, method: str) -> None:
    if os.path.isfile(os.path.join(checkpoint, MANIFEST_NAME)):
        # A file that had been written would be missed there.
        return
    before = read_options(checkpoint)
    if before.get("method") == method:
        raise FileError(
            f"{checkpoint}: {SAM_STATE_NAME} is missing, without which method={method!r} cannot go on where it was. "
            f"Resume from another checkpoint, or remove {SAM_CONFIG_NAME} too to let the method begin anew there."
        )
    logger.warning(
        f"{checkpoint} has no {SAM_STATE_NAME}: until there, the run was one of the stock Trainer or of another "
        f"method. method={method!r} begins as in a first update."
    )


def _problem(
    state: dict[str, Tensor],
    written: str | None,
    weights: dict[str, Tensor],
    stepped: Collection[str],
    may_overflow: bool,
) -> str | None:
    if not state:
        return "it holds nothing"
    if written is not None and written != str(len(state)):
        return f"it holds {len(state)} tensors of {written}"
    ours = [name for name in state if name in weights]
    missing = sorted(set(stepped) - set(ours)) if ours and written is None else []
    if missing:
        return f"it holds nothing for {missing[0]!r}, which has been trained"
    for name in ours:
        if state[name].dtype != weights[name].dtype:
            return f"{name!r} is in {state[name].dtype}, and the weight in {weights[name].dtype}"
    if not may_overflow:
        for name, value in state.items():
            if value.is_floating_point() and not value.isfinite().all():
                return f"{name!r} is not finite"
    return None


def read_options(checkpoint: str) -> dict:
    """What `sam_config.json` holds; nothing, with a warning, where it cannot be read: it is only compared."""
    path = os.path.join(checkpoint, SAM_CONFIG_NAME)
    if not os.path.isfile(path):
        return {}
    try:
        with open(path, encoding="utf-8") as file:
            options = json.load(file)
        if not isinstance(options, dict):
            raise ValueError("it holds no options")
    except (OSError, ValueError) as error:
        logger.warning(
            f"{path} cannot be read ({error}), so the options of before are not compared with those of now."
        )
        return {}
    return options
