"""When to perturb, and how far: in go the number of an update and the length of the run, out comes its radius ρ."""

import math
from dataclasses import dataclass

from torch.optim import Optimizer

from .rng import Draws


RHO_SCHEDULES = ("constant", "linear", "cosine", "learning_rate")


@dataclass(frozen=True)
class Schedule:
    r"""
    The radius of each update of a run of T updates, t = 0, 1, ..., T - 1. Updates outside of [start, end), all but
    each k-th one from start on, and of those a share 1 - q, drawn at random, are stock ones: they have no radius and
    cost one gradient. For the others

        ρ_t = w_t · (ρ_end + (ρ - ρ_end) · s_t)

    | `rho_schedule` | s_t |
    |---|---|
    | `"constant"` | 1 |
    | `"linear"` | 1 - u, with u from 0 at the first to 1 at the last update of [start, end) |
    | `"cosine"` | (1 + cos πu) / 2 |
    | `"learning_rate"` | η_t / η_peak of the first parameter group (GSAM, Zhuang et al. 2022, section 4.2; R-SAM) |

    and w_t, over the first `warmup` updates from start on, rises linearly to 1 (the i-th of them has i / warmup).

    Args:
        rho, rho_end (`float`): ρ and ρ_end.
        kind (`str`): one of `RHO_SCHEDULES`.
        warmup, start (`float`): a number of updates, or below 1 a share of the run.
        end (`float`, *optional*): the same; `None` is the end of the run.
        every (`int`): k.
        probability (`float`): q, as in SS-SAM (random switches between SGD and SAM). All ranks draw the same.
    """

    rho: float
    rho_end: float = 0.0
    kind: str = "constant"
    warmup: float = 0.0
    start: float = 0.0
    end: float | None = None
    every: int = 1
    probability: float = 1.0

    @property
    def varies(self) -> bool:
        """Whether updates that perturb differ in their radius."""
        return self.kind != "constant" or self.warmup > 0

    def check(self, updates: int) -> None:
        """
        Raises:
            `ValueError`: no update of a run of this length would perturb.
        """
        start, end = self._borders(updates)
        if not start < min(end, updates):
            raise ValueError(
                f"SAMConfig.start={self.start:g} and SAMConfig.end={self.end}: of the {updates} updates of this run, "
                f"none would perturb (start is update {start}, end is update {end}): choose an earlier start or a "
                "later end, or method='none'."
            )

    def radius(
        self, update: int, updates: int, optimizer: Optimizer | None = None, draws: Draws | None = None
    ) -> float | None:
        """
        Args:
            update (`int`): t, counted from 0 over the whole run, also where it was resumed.
            updates (`int`): T.
            optimizer (`Optimizer`, *optional*): whose learning rate `"learning_rate"` follows.
            draws ([`~hf_sam.rng.Draws`], *optional*): the random numbers of this update.

        Returns:
            `float` or `None`: ρ_t, or `None` for a stock update.
        """
        start, end = self._borders(updates)
        since = update - start
        if since < 0 or update >= end or since % self.every:
            return None
        if self.probability < 1 and (draws or Draws(update=update)).uniform("when to perturb") >= self.probability:
            return None
        rho = self.rho
        if self.kind != "constant":
            rho = self.rho_end + (self.rho - self.rho_end) * self._share(since, end - start, optimizer)
        warmup = _updates(self.warmup, updates)
        return rho if since + 1 >= warmup else rho * (since + 1) / warmup

    def _borders(self, updates: int) -> tuple[int, int]:
        return _updates(self.start, updates), updates if self.end is None else _updates(self.end, updates)

    def _share(self, since: int, length: int, optimizer: Optimizer | None) -> float:
        if self.kind == "learning_rate":
            group = optimizer.param_groups[0]
            peak = float(group.get("initial_lr", group["lr"]))
            return float(group["lr"]) / peak if peak else 0.0
        passed = since / max(1, length - 1)
        return 1.0 - passed if self.kind == "linear" else (1.0 + math.cos(math.pi * passed)) / 2.0


def _updates(value: float, updates: int) -> int:
    """As the host reads `warmup_steps`: below 1 a share of the run, rounded up."""
    return math.ceil(value * updates) if 0 < value < 1 else int(value)
