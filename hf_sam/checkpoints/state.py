"""Does the state of a method fit the run that goes on? In go tensors by name, out comes what is wrong with them.

A run that went on with another state, or without it, would end with other weights, and nobody would notice.
"""

import json
import logging
import os
from collections.abc import Collection

from torch import Tensor

from .contents import FileError
from .manifest import MANIFEST_NAME
from .method_state import SAM_STATE_NAME


logger = logging.getLogger(__name__)

SAM_CONFIG_NAME = "sam_config.json"


def explain_absence(checkpoint: str, method: str) -> None:
    """
    Of a state that `method` keeps. Raises `ValueError`, in the middle of a run of that method, or warns.
    """
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


def state_problem(
    state: dict[str, Tensor], weights: dict[str, Tensor], stepped: Collection[str], may_overflow: bool
) -> str | None:
    """
    Args:
        state (`dict[str, Tensor]`): of a method; by the name of a weight, or of its own.
        weights (`dict[str, Tensor]`): name -> trainable weight.
        stepped (`Collection[str]`): names that the state has to have: of weights that the optimizer has stepped.
        may_overflow (`bool`): under fp16 a state may be infinite, which the method knows.

    Returns:
        `str` or `None`: what does not fit.
    """
    ours = [name for name in state if name in weights]
    missing = sorted(set(stepped) - set(ours)) if ours else []
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
