"""
How a script ends. A mistake of the user is one line on stderr and exit status 2, an interrupt one line that says how
to go on and exit status 130; an error of the program keeps its traceback.

The user's mistakes are the `ValueError` and `OSError` of reading options, files and models and of putting the run
together: that is what this repository, `TrainingArguments` and `from_pretrained` raise where they refuse something.
Once the work has begun (`is_at_work`), an error is the program's, whatever its type.
"""

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, NoReturn


MISTAKE, INTERRUPTED = 2, 130
DEBUG = "--debug"
# `TrainingArguments` has an option of this name, too, which takes one of these.
DEBUG_OF_TRAINER = ("underflow_overflow", "tpu_metrics_debug")
# Ranks import and read at different speeds; the slowest of them should still speak for all.
FIRST_RANK_SECONDS = 10.0

_undo: list[Callable[[], None]] = []


def undo_after_mistake(undo: Callable[[], None]) -> None:
    """Have `undo` called if the script ends with a mistake of the user; the latest first."""
    _undo.append(undo)


def run_script(main: Callable[[list[str]], Any], go_on: str) -> NoReturn:
    """
    Run the script and end the process. `--debug` on the command line shows the traceback of a mistake as well.

    Args:
        main (`Callable[[list[str]], Any]`): Gets the command line without `--debug`. The exit status, if it returns an
            `int`; else 0.
        go_on (`str`): How to go on after an interrupt.
    """
    args, debug = _without_debug(sys.argv[1:])
    _undo.clear()

    def ended() -> int:
        try:
            status = main(args)
        except KeyboardInterrupt:
            # Whoever is impatient, or a launcher that passes the interrupt on, should not break into the last line.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            return INTERRUPTED
        except (ValueError, OSError) as error:
            if getattr(error, "at_work", False):
                raise
            _tell_mistake(error, debug)
            while _undo:
                _undo.pop()()
            return MISTAKE
        except Exception:
            # Ranks that wait for another one lose the connection when that one has told of a mistake and ended.
            if not _Ranks().have_told(seconds=0.5):
                raise
            return MISTAKE
        _leave_processes()
        return status if isinstance(status, int) else 0

    if "TORCHELASTIC_ERROR_FILE" in os.environ:
        from torch.distributed.elastic.multiprocessing.errors import record

        # An error of a rank becomes a part of torchrun's report.
        ended = record(ended)
    status = ended()
    if status == INTERRUPTED and _rank() == 0:
        # Not before progress bars have gone with the training, and not behind one of them or the ^C of a terminal.
        print(f"\nstopped; {go_on}", file=sys.stderr)
    _exit(status)


@contextmanager
def is_at_work() -> Iterator[None]:
    """What is raised in here is no mistake of the user. Also as a decorator."""
    try:
        yield
    except Exception as error:
        error.at_work = True
        raise


def _without_debug(args: list[str]) -> tuple[list[str], bool]:
    own = [
        index
        for index, arg in enumerate(args)
        if arg == DEBUG and (index + 1 == len(args) or args[index + 1] not in DEBUG_OF_TRAINER)
    ]
    return [arg for index, arg in enumerate(args) if index not in own], bool(own)


def _tell_mistake(error: Exception, debug: bool) -> None:
    rank, ranks = _rank(), _Ranks()
    if (rank > 0 and ranks.have_told(FIRST_RANK_SECONDS)) or not ranks.may_tell():
        return
    if debug:
        traceback.print_exception(error)
    line = f"error: {' '.join(str(error).split()) or type(error).__name__}"
    print(line + (f" (on rank {rank})" if rank > 0 else ""), file=sys.stderr)
    if path := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        # Below this line, torchrun prints some forty of its own, and ends them with what it finds here.
        pointer = {"message": "see the line with `error:` above", "extraInfo": {"timestamp": str(int(time.time()))}}
        with open(path, "w", encoding="utf-8") as file:
            json.dump({"message": pointer}, file)


def _rank() -> int:
    return int(os.environ.get("RANK", "0"))


class _Ranks:
    """
    What the ranks know of each other's mistakes, by torchrun's own store: it is there before and after the process
    group. Without it, or where it is gone, every rank speaks for itself.
    """

    def __init__(self):
        self.store = None
        if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
            from torch.distributed import TCPStore

            address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
            with suppress(RuntimeError):
                self.store = TCPStore(address, port, timeout=timedelta(seconds=FIRST_RANK_SECONDS))
            self.key = f"hf_sam_recipes/mistake/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"

    def have_told(self, seconds: float) -> bool:
        """Whether one of them tells of a mistake within some seconds."""
        if self.store is None:
            return False
        try:
            self.store.wait([self.key], timedelta(seconds=seconds))
        except RuntimeError:
            return False
        return True

    def may_tell(self) -> bool:
        """True for the first rank that asks, and for no other."""
        if self.store is None:
            return True
        try:
            return self.store.add(self.key, 1) == 1
        except RuntimeError:
            return True


def _has_process_group() -> bool:
    distributed = sys.modules.get("torch.distributed")
    return distributed is not None and distributed.is_available() and distributed.is_initialized()


def _leave_processes() -> None:
    """
    End the communication with the other processes, as the last thing that a script does after it went well.

    A process that exits with its process group alive is now and then aborted by the group's own threads: then torchrun
    reports a failure after everything has been written.
    """
    if _has_process_group():
        sys.modules["torch.distributed"].destroy_process_group()


def _exit(status: int) -> NoReturn:
    if status == INTERRUPTED or _has_process_group():
        # After an interrupt, progress bars that are left would be drawn once more. After a mistake, to leave the group
        # would mean to wait for the others, and its threads may abort a process that ends in the usual way.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)
