"""Ranks, pairs and roles: in go a rank and a world size, out comes who this process is and whom it talks to."""

from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

import torch.distributed as dist


class Role(str, Enum):
    """What a rank of a pair computes: the gradient at the perturbed, or at the lookahead weights."""

    PERTURBED = "perturbed"
    LOOKAHEAD = "lookahead"


@dataclass
class Pairs:
    """
    N = 2K ranks as K pairs. Ranks 2k and 2k + 1 read shard k of K; the even one is PERTURBED, the odd one LOOKAHEAD.
    Neighbours form a pair, so what a pair exchanges stays on a node.

    Args:
        rank (`int`): of this process, from 0.
        world_size (`int`): N.

    Raises:
        `ValueError`: N is odd.
    """

    rank: int
    world_size: int

    def __post_init__(self):
        if self.world_size % 2:
            raise ValueError(
                f"SAMConfig.method='sampa' works in pairs of ranks, and {self.world_size} ranks were started: start "
                f"{self.world_size + 1} or {self.world_size - 1} (torchrun --nproc_per_node), or use method='sam'."
            )

    @property
    def count(self) -> int:
        """K, the number of pairs, and so of shards of the data."""
        return self.world_size // 2

    @property
    def index(self) -> int:
        """k, the pair and the shard of this rank."""
        return self.rank // 2

    @property
    def role(self) -> Role:
        return Role.LOOKAHEAD if self.rank % 2 else Role.PERTURBED

    @property
    def partner(self) -> int:
        """The rank of the other one of this pair."""
        return self.rank ^ 1

    @property
    def role_group(self) -> dist.ProcessGroup:
        """The K ranks of this rank's role."""
        return self.create_groups()["role"]

    @property
    def pair_group(self) -> dist.ProcessGroup:
        """The two ranks of this pair."""
        return self.create_groups()["pair"]

    def create_groups(self) -> dict[str, dist.ProcessGroup]:
        """All ranks have to come here together, the first time."""
        return _groups_within(dist.group.WORLD)


@lru_cache(maxsize=1)
def _groups_within(world: dist.ProcessGroup) -> dict[str, dist.ProcessGroup]:
    """Trainers that follow each other in the same processes share them: each group keeps threads until it ends."""
    everyone = range(world.size())
    by_role = [[rank for rank in everyone if rank % 2 == parity] for parity in (0, 1)]
    by_pair = [[rank, rank + 1] for rank in everyone if rank % 2 == 0]
    role, _ = dist.new_subgroups_by_enumeration(by_role)
    pair, _ = dist.new_subgroups_by_enumeration(by_pair)
    return {"role": role, "pair": pair}
