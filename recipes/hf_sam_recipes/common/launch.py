"""How scripts are started on one process or on several."""

import sys


def launcher(processes: int) -> list[str]:
    """What stands before a script in a command: this Python, or on several processes torchrun with it."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    return [sys.executable, *(torchrun if processes > 1 else [])]
