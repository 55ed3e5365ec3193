"""The state of a method in a checkpoint: in go tensors by name, equal on all ranks or not, and out they come."""

import logging
import os

import safetensors
import safetensors.torch
from torch import Tensor

from .contents import FileError, naming_files


logger = logging.getLogger(__name__)

SAM_STATE_NAME = "sam_state.safetensors"
COUNT = "tensors"
SAM_RANK_STATE_NAME = "sam_state_{}.safetensors"


def save_state(state: dict[str, Tensor], folder: str, rank: int, ranks: int, of_rank: bool) -> None:
    """
    Write the state of this rank. Where there is none, no file is left either of a run before.

    Args:
        folder (`str`): the checkpoint; made if it is not there.
        of_rank (`bool`): ranks differ, so each writes a file of its own. Otherwise only one rank is to call this.
    """
    os.makedirs(folder, exist_ok=True)
    name = SAM_RANK_STATE_NAME.format(rank) if of_rank else SAM_STATE_NAME
    path = os.path.join(folder, name)
    if state:
        metadata = {"ranks": str(ranks), COUNT: str(len(state))}
        safetensors.torch.save_file({name: value.contiguous() for name, value in state.items()}, path, metadata)
    elif os.path.isfile(path):
        os.remove(path)


def has_count(folder: str) -> bool:
    """Whether the files themselves say how many tensors they hold, which those of hf_sam 0.1 do not."""
    path = os.path.join(folder, SAM_STATE_NAME)
    return not os.path.isfile(path) or COUNT in _metadata(path)


def _metadata(path: str) -> dict[str, str]:
    with naming_files(os.path.dirname(path), os.path.basename(path)), safetensors.safe_open(path, "pt") as file:
        return file.metadata() or {}


def _read(path: str) -> dict[str, Tensor]:
    expected = _metadata(path).get(COUNT)
    with naming_files(os.path.dirname(path), os.path.basename(path)):
        state = safetensors.torch.load_file(path)
    if not state or (expected is not None and expected != str(len(state))):
        held = "nothing" if not state else f"{len(state)} tensors of {expected}"
        raise FileError(f"{path}: it holds {held}: resume from another checkpoint.")
    return state


def load_state(folder: str, rank: int, ranks: int, of_rank: bool) -> dict[str, Tensor]:
    """
    What `save_state` wrote, for this rank; empty if that was nothing. Where ranks differed in another number than
    there are now, or no longer differ, all of them go on from the mean of their states.

    Raises:
        `ValueError`: the file of a rank is missing, cannot be read, or does not hold all that was written.
    """
    path = os.path.join(folder, SAM_STATE_NAME)
    if os.path.isfile(path):
        return _read(path)
    first = os.path.join(folder, SAM_RANK_STATE_NAME.format(0))
    if not os.path.isfile(first):
        return {}
    saved = int(_metadata(first)["ranks"])
    paths = [os.path.join(folder, SAM_RANK_STATE_NAME.format(number)) for number in range(saved)]
    if of_rank and saved == ranks:
        return _read(_present(paths[rank], saved))
    logger.warning(
        f"{folder} holds a state for each of {saved} ranks, and {ranks} of them "
        f"{'would need one' if of_rank else 'share one'} now: all go on from the mean."
    )
    return _mean([_present(path, saved) for path in paths])


def _present(path: str, saved: int) -> str:
    if not os.path.isfile(path):
        raise FileError(
            f"{path} is missing: it was saved by {saved} ranks, and the state of each is needed to resume. Bring the "
            "files of all machines together, or resume from another checkpoint."
        )
    return path


def _mean(paths: list[str]) -> dict[str, Tensor]:
    """Rank by rank, so that two states are held at a time."""
    mean = _read(paths[0])
    for path in paths[1:]:
        other = _read(path)
        # What only some have (the average of a weight that elsewhere had no gradient yet) is zero for the others.
        shared = {name: value + other[name] for name, value in mean.items() if name in other}
        mean = {**mean, **other, **shared}
    return {name: (value / len(paths)).to(value.dtype) for name, value in mean.items()}
