"""Random number generators: capture where every stream of a process stands, and put it back there."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


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
    try:
        if fresh:
            seed_all(int(torch.randint(2**62, ())))
        yield
    finally:
        state.restore()
