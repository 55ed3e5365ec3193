"""One rank: does the tasks that appear in a folder one after the other, until nobody is there to write any more."""

import importlib
import json
import select
import sys
from pathlib import Path

import torch

from tests.garbage import spare_what_is_imported


def main(ranks: int, folder: Path) -> None:
    number = 0
    while (task := wait_for(folder / f"{number}.json")) is not None:
        done, module = Path(task["folder"]), importlib.import_module(task["module"])
        spare_what_is_imported()
        for name, run in task["runs"].items():
            result = module.train(module.Run(**run), done / name.split("@")[0])
            assert torch.distributed.get_world_size() == ranks
            torch.save(result, done / f"{name}-{torch.distributed.get_rank()}.pt")
        (folder / f"{number}.{torch.distributed.get_rank()}").touch()
        number += 1


def wait_for(path: Path) -> dict | None:
    """The task in the file, as soon as there is one; None when the input has come to its end."""
    while not path.exists():
        ended, _, _ = select.select([sys.stdin], [], [], 0.05)
        if ended:
            return None
    return json.loads(path.read_text())


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
