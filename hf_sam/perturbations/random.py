"""RandSAM: along a random direction. A baseline: it does not find sharp directions."""

import torch
from torch import Tensor

from ..components import Description
from ..weights import EPSILON, global_norm, scale
from .base import Ascent, Perturbation


class RandomAscent(Perturbation):
    r"""
    `ε = ρ u / (‖u‖₂ + 1e-12)` with u from the standard normal distribution, drawn anew for each update.

    With `ascent_scope="global"` all ranks draw the same u, otherwise each its own. The numbers depend on the seed of
    the run and the number of the update alone: a resumed run draws the same ones, and the random streams of the
    process are left alone. One gradient per update, at the perturbed weights: `loss` in the log is the perturbed one.
    """

    description = Description(
        name="RandSAM",
        full_name="along a random direction (RandSAM)",
        story="The perturbation has length rho and points in a random direction, drawn for every update (RandSAM); it "
        "is a baseline that needs no gradient of its own.",
        gradients="0",
        memory="0",
        source="our reading: of RandSAM in Xie, Pethick and Cevher 2024 only the name and its failure to converge on "
        "f(x) = ‖x‖² were at hand",
    )
    needs_gradient = False

    @torch.no_grad()
    def __call__(self, ascent: Ascent) -> tuple[list[Tensor], Tensor]:
        displacement = list(ascent.draws.normal("random ascent", ascent.weights, shared=not ascent.local))
        norm = global_norm(displacement)
        scale(displacement, ascent.rho / (norm + EPSILON))
        return displacement, norm
