"""One rank: runs every run of `runs.json` and saves what it has at the end."""

import json
import sys
from pathlib import Path

import torch

from tests import harness


def main(ranks: int, folder: Path) -> None:
    for name, values in json.loads((folder / "runs.json").read_text()).items():
        result = harness.train(harness.Run(**values), folder / name)
        assert torch.distributed.get_world_size() == ranks
        torch.save(result, folder / f"{name}-{torch.distributed.get_rank()}.pt")


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
    torch.distributed.destroy_process_group()
