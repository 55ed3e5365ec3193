"""A checkpoint without a manifest, of the stock Trainer or of hf_sam 0.1: is all there that resuming needs?

Files are opened, not loaded: a file that was cut off has lost the end, or does not have the length that its head says.
"""

import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import safetensors
import torch
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME, TRAINER_STATE_NAME
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, WEIGHTS_INDEX_NAME


TORCH_SUFFIXES = (".bin", ".pt", ".pth")
WEIGHTS = ("model", "pytorch_model", "adapter_model")


def why_unreadable(folder: Path) -> str | None:
    """
    Args:
        folder (`Path`): of the checkpoint.

    Returns:
        `str` or `None`: which file is missing or cut off; `None` if none is. The Trainer writes `trainer_state.json`
        last, so on rank 0 a checkpoint that has it has everything; only other ranks may not have been done.
    """
    if not (folder / TRAINER_STATE_NAME).is_file():
        return f"{TRAINER_STATE_NAME} is missing"
    files = sorted(path for path in folder.iterdir() if path.is_file())
    for path in files:
        problem = file_problem(path)
        if problem:
            return problem
    # Sharded weights lie in folders.
    if not any(path.name.startswith(WEIGHTS) for path in files) and not any(p.is_dir() for p in folder.iterdir()):
        return "there are no weights"
    return _missing_shard(folder) or _missing_rank(folder)


def file_problem(path: Path) -> str | None:
    """What is wrong with one file of a checkpoint, as far as that can be seen without loading it."""
    try:
        if path.name == TRAINER_STATE_NAME or path.name.endswith(".index.json"):
            json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix == ".safetensors":
            with safetensors.safe_open(path, framework="pt"):
                pass
        elif path.suffix in TORCH_SUFFIXES:
            _open_torch_file(path)
    except FileNotFoundError:
        return f"{path.name} is missing"
    except (OSError, ValueError, zipfile.BadZipFile, safetensors.SafetensorError) as error:
        return f"{path.name} cannot be read ({error})"
    return None


def absent(folder: str | Path, ranks: int, rank: int) -> list[str]:
    """Files without which the Trainer resumes in silence, and otherwise than the run would have gone on."""
    folder = Path(folder)
    random_state = f"rng_state_{rank}.pth" if ranks > 1 else "rng_state.pth"
    sharded = any(path.is_dir() for path in folder.iterdir())
    names = [*([] if sharded else [OPTIMIZER_NAME, SCHEDULER_NAME]), random_state]
    return [name for name in names if not (folder / name).is_file()]


class FileError(ValueError):
    """An error about a file of a checkpoint, which its message names."""


@contextmanager
def naming_files(folder: str | Path | None, *patterns: str) -> Iterator[None]:
    """
    Args:
        folder (`str`, *optional*): a checkpoint, files of which are read in the block.
        patterns (`str`): which files these are, as in `Path.glob`.

    Raises:
        `ValueError`: for any error in the block, with the name of the file that it is about.
    """
    try:
        yield
    except (FileError, torch.OutOfMemoryError):
        # Named already; or not about a file, and the host may try again with smaller batches.
        raise
    except Exception as error:
        if folder is None:
            raise
        paths = [path for pattern in patterns for path in sorted(Path(folder).glob(pattern)) if path.is_file()]
        broken = [path for path in paths if file_problem(path)] or paths
        names = " or ".join(path.name for path in broken) or patterns[0]
        raise FileError(f"{folder}: {names} cannot be loaded ({type(error).__name__}: {error})") from error


def _open_torch_file(path: Path) -> None:
    with open(path, "rb") as file:
        head = file.read(4)
    if not head:
        raise ValueError("it is empty")
    # Other formats than a zip archive, which torch wrote before 1.6, do not show where they end.
    if head.startswith(b"PK"):
        zipfile.ZipFile(path).close()


def _missing_shard(folder: Path) -> str | None:
    for name in (SAFE_WEIGHTS_INDEX_NAME, WEIGHTS_INDEX_NAME):
        if (folder / name).is_file():
            shards = json.loads((folder / name).read_text(encoding="utf-8")).get("weight_map", {}).values()
            for shard in sorted(set(shards)):
                if not (folder / shard).is_file():
                    return f"{shard} is missing"
    return None


def _missing_rank(folder: Path) -> str | None:
    """Several ranks, so two or more, have written as many random states: 0, 1, … without a gap."""
    written = {int(path.stem.rpartition("_")[2]) for path in folder.glob("rng_state_[0-9]*.pth")}
    expected = range(max(2, max(written) + 1) if written else 0)
    missing = [rank for rank in expected if rank not in written]
    return f"rng_state_{missing[0]}.pth is missing" if missing else None
