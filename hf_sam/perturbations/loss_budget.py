"""LE-SAM: the radius follows from how much the loss may rise."""

import math
from dataclasses import dataclass

from torch import Tensor

from ..components import Description
from ..options import option
from ..weights import EPSILON
from .base import Ascent, Perturbation


LE_SAM_BIBTEX = """@misc{lesam2026,
    title         = {{LE-SAM}},
    eprint        = {2605.10183},
    archivePrefix = {arXiv},
    year          = {2026}
}"""


@dataclass(frozen=True)
class LossBudgetOptions:
    budget: float = option(
        0.05, "s, how much the loss may rise, to first order, in units of the loss; ours", lower=0.0
    )
    anneal: float = option(
        0.2, "share of the run, at its end, over which s goes to 0 along a cosine; ours", lower=0.0, upper=1.0
    )


class LossBudget(Perturbation):
    """
    `r = min(s_t / (‖a‖₂ + 1e-12), ρ)`, `ε = r a / (‖a‖₂ + 1e-12)`: the loss rises by s_t, to first order, and ρ is the
    largest radius. s_t is `budget`, and over the last `anneal` of the run's updates `budget · (1 + cos πu) / 2`, with
    u from 0 at the first to 1 at the last of them. With a budget so large that ρ always is the smaller one, this is
    SAM.

    After the abstract of LE-SAM (arXiv:2605.10183); both defaults, and the share of the run, are our reading.
    """

    description = Description(
        name="LE-SAM",
        full_name="along the gradient, as far as the loss rises by a budget",
        story="The perturbation points along the gradient and is as long as the loss rises by a given budget, to "
        "first order, with rho as the longest (LE-SAM). The budget goes to 0 at the end of training.",
        citations=(LE_SAM_BIBTEX,),
        gradients="1",
        source="arXiv:2605.10183, abstract; defaults and the form of the annealing are our reading",
    )
    options_class = LossBudgetOptions

    def __call__(self, ascent: Ascent) -> tuple[list[Tensor], Tensor]:
        norm = ascent.norm
        radius = (self.allowed(ascent.update, ascent.updates) / (norm + EPSILON)).clamp_max(ascent.rho)
        return ascent.to_radius(ascent.direction(), norm, radius), norm

    def allowed(self, update: int, updates: int) -> float:
        """s_t."""
        length = round(self.options.anneal * updates)
        passed = max(0, update - (updates - length)) / max(1, length - 1)
        return self.options.budget * (1 + math.cos(math.pi * min(1.0, passed))) / 2
