"""One rank: runs every run of `runs.json` and saves what it has at the end, and a digest of its weights per update."""

import hashlib
import json
import sys
from pathlib import Path

import torch
from transformers import TrainerCallback

from tests import harness


class Digests(TrainerCallback):
    """After every update, a hash of the bits of all weights and of the optimizer's state."""

    def __init__(self):
        self.values = []

    def on_step_end(self, args, state, control, model=None, optimizer=None, **kwargs):
        tensors = list(model.state_dict().values())
        for entry in optimizer.state_dict()["state"].values():
            tensors += [value for value in entry.values() if torch.is_tensor(value)]
        digest = hashlib.sha256()
        for tensor in tensors:
            digest.update(tensor.detach().reshape(-1).view(torch.uint8).numpy().tobytes())
        self.values.append(digest.hexdigest())


def main(ranks: int, folder: Path) -> None:
    for name, values in json.loads((folder / "runs.json").read_text()).items():
        digests = Digests()
        result = harness.train(harness.Run(**values), folder / name, callbacks=[digests])
        assert torch.distributed.get_world_size() == ranks
        rank = torch.distributed.get_rank()
        torch.save(result | {"digests": digests.values}, folder / f"{name}-{rank}.pt")


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
    torch.distributed.destroy_process_group()
