"""Folders that options name, checked before any work is done."""

import os
from pathlib import Path


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
    The folder, made where it is missing.

    Raises:
        `ValueError`: it cannot be made, or nothing can be written to it.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"{option}={str(folder)!r}: cannot be made ({error.strerror}); give another folder."
        ) from error
    if not os.access(folder, os.W_OK):
        raise ValueError(f"{option}={str(folder)!r}: nothing can be written to it; give another folder.")
    return folder
