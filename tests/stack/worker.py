"""One rank: runs `run | host` for each that is named, and saves what it has at the end, or with which words it was
refused.
"""

import sys
from pathlib import Path

import torch

from tests.stack.cells import RUNS


def main(ranks: int, folder: Path, names: list[str]) -> None:
    for number, name in enumerate(names):
        run, host = name.split(" | ")
        try:
            result = RUNS[run](host, folder / str(number))
        except ValueError as error:
            if "SAMConfig." not in str(error):
                raise
            result = {"error": str(error)}
        assert torch.distributed.get_world_size() == ranks
        torch.save(result, folder / f"{number}-{torch.distributed.get_rank()}.pt")


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
    torch.distributed.destroy_process_group()
