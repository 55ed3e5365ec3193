"""Folders with made-up data, once for all tests."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest


def made_folder(write: Callable[..., None], each: Iterable[Any]):
    """A fixture: the folder into which `write(folder, one)` has written each one of `each`."""

    @pytest.fixture(scope="session")
    def folder(tmp_path_factory):
        folder = tmp_path_factory.mktemp("made")
        for one in each:
            write(folder, one)
        return folder

    return folder
