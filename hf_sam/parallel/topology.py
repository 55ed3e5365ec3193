"""Ranks, pairs and roles: in go a rank and a world size, out comes who this process is and whom it talks to."""

import os
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum

import torch.distributed as dist


class Role(str, Enum):
    """What a rank of a pair computes: the gradient at the perturbed, or at the lookahead weights."""

    PERTURBED = "perturbed"
    LOOKAHEAD = "lookahead"


@dataclass(frozen=True)
class Pairs:
    """
    N = 2K ranks as K pairs. Ranks 2k and 2k + 1 read shard k of K; the even one is PERTURBED, the odd one LOOKAHEAD.
    Neighbours form a pair, so what a pair exchanges stays on a node.

    Args:
        rank (`int`): of this process, from 0.
        world_size (`int`): N.
        timeout (`timedelta`, *optional*): how long a rank waits for another one; by default as long as torch does.

    Raises:
        `ValueError`: N is odd.
    """

    rank: int
    world_size: int
    timeout: timedelta | None = None

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
    def role_group(self) -> dist.ProcessGroup | None:
        """The K ranks of this rank's role; `None` where this is the only one."""
        return self._groups.role

    @property
    def pair_group(self) -> dist.ProcessGroup:
        """The two ranks of this pair."""
        return self._groups.pair

    @property
    def _groups(self) -> "PairGroups":
        world = dist.group.WORLD
        if (world, self.timeout) not in _GROUPS:
            # Groups of a world that no longer exists are of no use.
            for known in [known for known in _GROUPS if known[0] is not world]:
                del _GROUPS[known]
            _GROUPS[world, self.timeout] = PairGroups.create(self)
        return _GROUPS[world, self.timeout]

    def create_groups(self) -> None:
        """All ranks have to come here together, the first time."""
        _ = self._groups


@dataclass(frozen=True)
class PairGroups:
    """The process groups of a [`Pairs`]. Each holds threads and sockets, so that a process makes them once."""

    role: dist.ProcessGroup | None
    pair: dist.ProcessGroup

    @classmethod
    def create(cls, pairs: Pairs) -> "PairGroups":
        everyone = range(pairs.world_size)
        by_role = [[rank for rank in everyone if rank % 2 == parity] for parity in (0, 1)]
        by_pair = [[rank, rank + 1] for rank in everyone if rank % 2 == 0]
        _use_new_names(len(by_pair) + len(by_role))
        role = None
        if pairs.count > 1:
            role, _ = dist.new_subgroups_by_enumeration(by_role, timeout=pairs.timeout)
        pair, _ = dist.new_subgroups_by_enumeration(by_pair, timeout=pairs.timeout)
        return cls(role, pair)


def _use_new_names(groups: int) -> None:
    """
    After an elastic restart torchrun keeps the store of the attempt before, and so the addresses under which the ranks
    that have ended could be reached. Groups are numbered, and one of a single rank, which looks up no address, uses up
    a number.
    """
    restarts = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    for _ in range(restarts * groups):
        dist.destroy_process_group(dist.new_group([0]))


_GROUPS: dict[tuple[dist.ProcessGroup, timedelta | None], PairGroups] = {}
