"""MSAM: against the momentum of the optimizer, which is known before the window is."""

import torch
from torch import Tensor

from ..components import Conflict, Description
from ..optimizer_checks import WITH_MOMENTS, without_moments
from ..weights import EPSILON, global_norm, scale
from .base import Ascent, Perturbation


MSAM_BIBTEX = """@article{becker2024msam,
    title   = {Momentum-{SAM}: Sharpness Aware Minimization without Computational Overhead},
    author  = {Becker, Marlon and Altrock, Frederick and Risse, Benjamin},
    journal = {arXiv preprint arXiv:2401.12033},
    year    = {2024}
}"""


class MomentumAscent(Perturbation):
    r"""
    Momentum-SAM in its AdamW form (Becker et al. 2024, https://arxiv.org/abs/2401.12033), with m the `exp_avg` of the
    optimizer before its step, not corrected for its start at zero:

        ε = -ρ m / (‖m‖₂ + 1e-12)

    The sign is minus: m points to where the loss fell from. Before the first step there is no m, and no displacement.
    The authors keep the weights displaced from one update to the next; here they are displaced while a window's
    gradient is computed, so evaluation, saving, weight averages and a radius that changes need no care.

    One gradient per update: there is no unperturbed loss, so `loss` in the log is the perturbed one, and running
    statistics of BatchNorm come from the perturbed pass. The authors' radii are large, 1 to 10 for vision models, and
    0 while the learning rate warms up (`SAMConfig.start`).
    """

    description = Description(
        name="MSAM",
        full_name="against the momentum of the optimizer (momentum SAM)",
        story="The perturbation points against the momentum of the optimizer (momentum SAM, MSAM), which needs no "
        "gradient of its own, and has length rho.",
        citations=(MSAM_BIBTEX,),
        gradients="0",
        memory="0",
        source="the authors' code, MarlonBecker/MSAM@780fa4f, optimizer/adamW_msam.py",
    )
    conflicts = (
        Conflict(
            option="{}",
            found=without_moments,
            why="which is not known to keep a moving average of the gradients as exp_avg",
            instead=f"use one of {', '.join(WITH_MOMENTS)}",
        ),
    )
    needs_gradient = False

    @torch.no_grad()
    def __call__(self, ascent: Ascent) -> tuple[list[Tensor], Tensor]:
        state = ascent.optimizer.state
        displacement = [torch.zeros_like(weight) for weight in ascent.weights]
        for weight, direction in zip(ascent.weights, displacement, strict=True):
            momentum = state[weight].get("exp_avg") if weight in state else None
            if momentum is not None:
                direction.copy_(momentum)
        norm = global_norm(displacement)
        scale(displacement, -ascent.rho / (norm + EPSILON))
        return displacement, norm
