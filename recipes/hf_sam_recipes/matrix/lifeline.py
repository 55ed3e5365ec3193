"""A training process must not outlive the runner that waits for it, not even one that was killed."""

import os
import sys
import threading


def end_with_runner() -> None:
    """
    End this process as soon as standard input is closed.

    The runner holds the other end of that pipe and never writes to it. Every rank that a launcher starts inherits it.
    """
    descriptor = sys.stdin.fileno()

    def wait():
        while os.read(descriptor, 1):
            pass
        # Not sys.exit: that would only end this thread.
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
