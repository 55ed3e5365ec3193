"""A rank that does not answer: in goes the error of a rank that waited for it, out comes one that says for whom."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

import torch.distributed as dist


# How long those that have given up wait to hear of each other, seconds. They give up at about the same time.
ROLL_CALL = 2.0


class ExchangeError(RuntimeError):
    """
    Args:
        waiting_for (`str`): what did not come, and from whom.
        error (`Exception`): of the collective.
    """

    def __init__(self, waiting_for: str, error: Exception):
        super().__init__(str(error))
        self.waiting_for = waiting_for


@contextmanager
def naming_silent_ranks(rank: int, ranks: int, timeout: timedelta, during: str) -> Iterator[None]:
    """
    Says which ranks have not answered if the block fails because of them. Other errors pass.

    Args:
        rank (`int`): of this process.
        ranks (`int`): how many there are.
        timeout (`timedelta`): how long ranks wait for each other.
        during (`str`): what the block does, such as "update 7".

    Raises:
        `RuntimeError`: with the silent ranks, and what this one was waiting for.
    """
    try:
        yield
    except Exception as error:
        if ranks == 1 or not _is_about_ranks(error):
            raise
        silent = _silent_ranks(rank, ranks)
        who = f"Rank {', '.join(map(str, silent))}" if silent else "A rank"
        waiting_for = getattr(error, "waiting_for", "all ranks to come to the same point")
        raise RuntimeError(
            f"{who} did not answer in {during}, where rank {rank} was waiting for {waiting_for}. It has ended, hangs, "
            f"or cannot be reached; its own output says why. Ranks wait for each other for ddp_timeout="
            f"{timeout.total_seconds():g} seconds. ({error})"
        ) from error


def follow_timeout(timeout: timedelta) -> None:
    """Let the group of all ranks wait no longer than `timeout`: with `use_cpu` the host does not pass it on."""
    set_timeout = getattr(dist.distributed_c10d, "_set_pg_timeout", None)
    if dist.is_initialized() and dist.get_backend() == dist.Backend.GLOO and set_timeout is not None:
        set_timeout(timeout)


def _is_about_ranks(error: Exception) -> bool:
    # Gloo raises plain RuntimeErrors.
    known = ("gloo", "nccl", "connection closed by peer", "connection reset by peer")
    return isinstance(error, (ExchangeError, dist.DistError)) or any(name in str(error).lower() for name in known)


def _silent_ranks(rank: int, ranks: int) -> list[int]:
    """Those that do not say, in the store that all ranks share, that they too have given up waiting."""
    others = [other for other in range(ranks) if other != rank]
    heard: set[int] = set()
    # In a thread, which may be left behind: where the store cannot be reached, asking it may never end.
    roll_call = threading.Thread(target=_call_the_roll, args=(rank, others, heard), daemon=True)
    roll_call.start()
    roll_call.join(ROLL_CALL)
    return [other for other in others if other not in heard]


def _call_the_roll(rank: int, others: list[int], heard: set[int]) -> None:
    with suppress(RuntimeError, ValueError):
        store = dist.distributed_c10d._get_default_store()
        key = f"hf_sam/gave_up/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
        store.set(f"{key}/{rank}", "")
        deadline = time.monotonic() + ROLL_CALL
        while len(heard) < len(others) and time.monotonic() < deadline:
            heard.update(other for other in others if store.check([f"{key}/{other}"]))
            time.sleep(0.05)
