"""Folders that options name, checked before any work is done."""

import os
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path

from .entry import undo_after_mistake


def existing_folder(option: str, folder: str | Path) -> Path:
    """
    Raises:
        `ValueError`: there is no such folder.
    """
    if not Path(folder).is_dir():
        raise ValueError(f"{option}={str(folder)!r}: no such folder.")
    return Path(folder)


def made_folder(option: str, folder: str | Path) -> Path:
    """
    The folder, made where it is missing. A mistake that is found later leaves none that was made for it.

    Raises:
        `ValueError`: it cannot be made, or nothing can be written to it.
    """
    folder = Path(folder)
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    for place in reversed(missing):
        undo_after_mistake(partial(_remove_empty, place))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"{option}={str(folder)!r}: cannot be made ({error.strerror}); give another folder."
        ) from error
    if not os.access(folder, os.W_OK):
        raise ValueError(f"{option}={str(folder)!r}: nothing can be written to it; give another folder.")
    return folder


def refuse_folders(option: str, folder: Path, files: Iterable[str]) -> None:
    """
    Raises:
        `ValueError`: one of the files that will be written into `folder` is there as a folder.
    """
    for name in files:
        if (folder / name).is_dir():
            raise ValueError(
                f"{option}={str(folder)!r}: a file {name} has to be written there, and it has a folder of this name; "
                "move that folder, or give another one."
            )


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()
