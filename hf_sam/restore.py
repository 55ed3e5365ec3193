"""What is moved for a while comes back, even if Ctrl-C arrives between the two statements where it must not.

A `finally` alone does not ensure that: an interrupt may arrive while the block is being left, before the first of its
statements. So what has to be undone is also noted in a place that an outer block looks at.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch


class _Open(threading.local):
    """What is to be undone, in the order in which it was done. A thread trains on its own."""

    def __init__(self):
        self.restores: list[Callable[[], None]] = []

    def close_down_to(self, depth: int) -> None:
        while len(self.restores) > depth:
            self.restores[-1]()
            self.restores.pop()


_open = _Open()


@contextmanager
def brought_back(restore: Callable[[], None]) -> Iterator[None]:
    """
    Calls `restore` at the end of the block, whatever happens. All changes belong inside the block.

    Args:
        restore (`Callable[[], None]`): puts things where they are now. May be called more than once.
    """
    depth = len(_open.restores)
    _open.restores.append(restore)
    try:
        yield
    finally:
        # Not if an outer block has done it: Python may close an abandoned block late, when things have moved on.
        if restore in _open.restores[depth:]:
            _open.close_down_to(depth)


@contextmanager
def all_brought_back() -> Iterator[None]:
    """The outer block: what an interrupt has left undone of the blocks inside is undone here, as is the mode of
    autograd."""
    depth, records_gradients = len(_open.restores), torch.is_grad_enabled()
    try:
        yield
    finally:
        _open.close_down_to(depth)
        torch.set_grad_enabled(records_gradients)


@contextmanager
def undone_on_failure(undo: Callable[[], None]) -> Iterator[None]:
    """Calls `undo` if the block is left by any exception, after the blocks inside have brought back what is theirs."""
    with all_brought_back():
        _open.restores.append(undo)
        yield
        _open.restores.pop()
