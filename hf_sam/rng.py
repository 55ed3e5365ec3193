"""Random number generators: capture where every stream of a process stands, and put it back there; and numbers that
come from no stream of the process at all.
"""

import hashlib
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .restore import brought_back


@dataclass(frozen=True)
class RandomState:
    """Where the streams of Python, NumPy, torch and all accelerators of one kind that this process sees stand."""

    python: Any
    numpy: Any
    torch: torch.Tensor
    device: torch.device
    accelerators: list[torch.Tensor]

    @classmethod
    def capture(cls, device: torch.device) -> "RandomState":
        return cls(
            python=random.getstate(),
            numpy=np.random.get_state(),
            torch=torch.get_rng_state(),
            device=device,
            accelerators=[] if device.type == "cpu" else torch.get_device_module(device).get_rng_state_all(),
        )

    def same_as(self, other: "RandomState") -> bool:
        """Whether nothing has been drawn between the two, by any stream."""
        ours, theirs = [self.torch, *self.accelerators], [other.torch, *other.accelerators]
        numpy = all(np.array_equal(one, another) for one, another in zip(self.numpy, other.numpy, strict=True))
        return numpy and self.python == other.python and all(map(torch.equal, ours, theirs))

    def restore(self) -> None:
        random.setstate(self.python)
        np.random.set_state(self.numpy)
        torch.set_rng_state(self.torch)
        if self.accelerators:
            torch.get_device_module(self.device).set_rng_state_all(self.accelerators)


def seed_all(seed: int) -> None:
    """Start every stream of the process anew."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


@contextmanager
def preserved_rng(device: torch.device, fresh: bool = False) -> Iterator[None]:
    """
    The streams leave the block where they entered it.

    Args:
        device (`torch.device`): where the model runs.
        fresh (`bool`, *optional*, defaults to `False`):
            Inside the block, draw other numbers than what comes next outside of it (still reproducible).
    """
    state = RandomState.capture(device)
    with brought_back(state.restore):
        if fresh:
            seed_all(int(torch.randint(2**62, ())))
        yield


@dataclass(frozen=True)
class Draws:
    """
    The random numbers of one update. They depend on what stands here alone: nothing has to be saved, a resumed run
    draws the same ones, and the streams of the process stay where they are.

    Args:
        seed (`int`, *optional*, defaults to 0): of the run, the same on all ranks.
        update (`int`, *optional*, defaults to 0): number of the update, counted from 0 over the whole run.
        rank (`int`, *optional*, defaults to 0): of this process, for what each rank draws by itself.
    """

    seed: int = 0
    update: int = 0
    rank: int = 0

    def uniform(self, purpose: str) -> float:
        """A number from [0, 1), the same on all ranks. Other numbers for each `purpose`."""
        return self._seed_of(purpose, "all") / 2**63

    def normal(self, purpose: str, like: Sequence[torch.Tensor], shared: bool) -> Iterator[torch.Tensor]:
        """
        For each tensor of `like` one of its shape, dtype and device, from the standard normal distribution; the same
        on all ranks if `shared`. Drawn one after the other, so that they need not be in memory all at once.
        """
        generators: dict[torch.device, torch.Generator] = {}
        for tensor in like:
            if tensor.device not in generators:
                seed = self._seed_of(purpose, "all" if shared else self.rank)
                generators[tensor.device] = torch.Generator(tensor.device).manual_seed(seed)
            options = {"dtype": tensor.dtype, "device": tensor.device}
            yield torch.randn(tensor.shape, generator=generators[tensor.device], **options)

    def _seed_of(self, *purpose: Any) -> int:
        key = "/".join(map(str, (self.seed, self.update, *purpose)))
        return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") >> 1
