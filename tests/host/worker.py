"""One of several processes: runs all cases, or those named, and saves what each has left on this rank."""

import sys
from pathlib import Path

import torch

from tests.host.cases import CASES


def main(ranks: int, folder: Path, names: list[str]) -> None:
    for name in names:
        result = CASES[name](ranks, folder / name)
        assert torch.distributed.get_world_size() == ranks
        torch.save(result, folder / f"{name}-{torch.distributed.get_rank()}.pt")


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
    torch.distributed.destroy_process_group()
