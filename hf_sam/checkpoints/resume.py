"""Which checkpoint a run goes on from: in goes what the user asked for, out comes a folder that is whole, or none."""

import logging
import os
import re
from collections.abc import Callable
from pathlib import Path

from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from .manifest import why_not_whole


logger = logging.getLogger(__name__)

#: Go on if there is something to go on from, else begin: what a job that may be restarted at any time asks for.
AUTO = "auto"

Judge = Callable[[str], str | None]


def get_last_checkpoint(folder: str | os.PathLike) -> str | None:
    """
    The last whole checkpoint in `folder`; `None` if there is none. Does what the function of that name in
    `transformers.trainer_utils` does, which returns the last one, whole or not. Those that are skipped are named, with
    the reason, in a warning.

    Example:

    ```python
    from hf_sam import get_last_checkpoint

    trainer.train(resume_from_checkpoint=get_last_checkpoint(args.output_dir))
    ```
    """
    whole, skipped = last_whole(folder)
    report_skipped(skipped, whole)
    return whole


def list_checkpoints(folder: str | os.PathLike) -> list[str]:
    """The folders `checkpoint-<step>` in `folder`, the last step first."""
    if not os.path.isdir(folder):
        return []
    steps = {}
    for entry in Path(folder).iterdir():
        match = re.fullmatch(rf"{PREFIX_CHECKPOINT_DIR}-(\d+)", entry.name)
        if match and entry.is_dir():
            steps[os.path.join(folder, entry.name)] = int(match[1])
    return sorted(steps, key=steps.get, reverse=True)


def last_whole(
    folder: str | os.PathLike, judge: Judge = why_not_whole, checkpoints: list[str] | None = None
) -> tuple[str | None, dict[str, str]]:
    """
    Args:
        folder (`str`): where checkpoints are.
        judge (`Callable[[str], str | None]`, *optional*): says why a checkpoint is not whole; asked from the last one
            on until it finds nothing.
        checkpoints (`list[str]`, *optional*): those to choose from, the last first; by default all in `folder`.

    Returns:
        `tuple[str | None, dict[str, str]]`: the last whole checkpoint, and checkpoint -> reason for those after it.
    """
    skipped = {}
    for checkpoint in list_checkpoints(folder) if checkpoints is None else checkpoints:
        reason = judge(checkpoint)
        if reason is None:
            return checkpoint, skipped
        skipped[checkpoint] = reason
    return None, skipped


def choose(wanted: str | bool | None, folder: str, judge: Judge, checkpoints: list[str]) -> str | None:
    """
    What `resume_from_checkpoint` means.

    Args:
        wanted (`str`, `bool`, *optional*):
            `None` or `False`: nothing. `True`: the last whole checkpoint, which must exist. `"auto"`: the last whole
            one, if there is one. A path: this one; if it is not whole, an earlier one is taken only where the path is
            the last in `folder`, which is what scripts pass on that look for the last one themselves.
        folder (`str`): where the run writes its checkpoints.
        judge (`Callable[[str], str | None]`): says why a checkpoint is not whole.
        checkpoints (`list[str]`): those in `folder`, the last first.

    Raises:
        `ValueError`: there is no whole checkpoint; the message names each one there is, and what it lacks.
    """
    if wanted is None or wanted is False:
        return None
    if wanted is not True and not (wanted == AUTO and not os.path.isdir(AUTO)):
        reason = judge(str(wanted))
        if reason is None:
            return str(wanted)
        if not any(_is_same(wanted, checkpoint) for checkpoint in checkpoints[:1]):
            raise ValueError(f"resume_from_checkpoint={str(wanted)!r} is not a whole checkpoint: {reason}.")
    whole, skipped = last_whole(folder, judge, checkpoints)
    if whole is None and wanted != AUTO:
        found = _list(skipped) if skipped else "there are no checkpoints"
        raise ValueError(
            f"resume_from_checkpoint={wanted!r}: no whole checkpoint in {folder!r} ({found}). Without "
            f"resume_from_checkpoint, or with {AUTO!r}, training starts from the beginning."
        )
    report_skipped(skipped, whole)
    return whole


def report_skipped(skipped: dict[str, str], instead: str | None) -> None:
    if skipped:
        after = "training starts from the beginning" if instead is None else f"{instead} is the last whole checkpoint"
        logger.warning(f"Skipped, since not whole: {_list(skipped)}. So {after}.")


def _list(skipped: dict[str, str]) -> str:
    return "; ".join(f"{checkpoint}: {reason}" for checkpoint, reason in skipped.items())


def _is_same(left: str | os.PathLike, right: str | os.PathLike) -> bool:
    return os.path.realpath(left) == os.path.realpath(right)
