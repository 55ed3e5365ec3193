"""The ascent step in the geometry of AdamW: the gradient over the second moment that AdamW would divide it by."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..components import Conflict, Description
from ..optimizer_checks import WITH_MOMENTS, without_moments
from ..options import option
from .base import Ascent, Perturbation


FUNCTIONAL_SAM_BIBTEX = """@article{singh2025avoiding,
    title   = {Avoiding spurious sharpness minimization broadens applicability of {SAM}},
    author  = {Singh, Sidak Pal and Mobahi, Hossein and Agarwala, Atish and Dauphin, Yann},
    journal = {arXiv preprint arXiv:2502.02407},
    year    = {2025}
}"""


@dataclass(frozen=True)
class PreconditionedOptions:
    exponent: float = option(
        1.0,
        "power of D; 1 is a step as AdamW's own, 0.5 halfway to the plain gradient, 0 is SAM",
        lower=0.0,
        upper=2.0,
    )


class Preconditioned(Perturbation):
    """
    `D = sqrt(v̂) + eps`, `ε = ρ D^-k a / (‖D^-k a‖₂ + 1e-12)`, with k the `exponent` and v̂ the second moment of AdamW,
    corrected for its start, **with a taken in**: what AdamW would divide by if it stepped with a. Without a, a weight
    that has its first gradient (the embedding of a word not seen before) has v̂ = 0 and would take the whole radius.
    Before the first step there is no second moment, and ε is that of SAM.

    An ascent preconditioned so is a variant named in Singh et al. 2025 (https://arxiv.org/abs/2502.02407, abstract);
    the exponent and the formula are our reading.
    """

    description = Description(
        name="preconditioned",
        full_name="along the gradient over AdamW's second moment",
        story="The perturbation points along the gradient divided by the root of AdamW's second moment, so that it is "
        "in the geometry of the optimizer's own steps.",
        citations=(FUNCTIONAL_SAM_BIBTEX,),
        gradients="1",
        source="Singh et al. 2025, abstract; the exponent and the formula are our reading",
    )
    options_class = PreconditionedOptions
    conflicts = (
        Conflict(
            option="{}",
            found=without_moments,
            why="whose second moment is not known",
            instead=f"use one of {', '.join(WITH_MOMENTS)}, or another perturbation",
            kind="An optimizer that is not AdamW or Adam",
        ),
    )

    def __call__(self, ascent: Ascent) -> tuple[list[Tensor], Tensor]:
        norm, direction = ascent.norm, ascent.direction()
        state = ascent.optimizer.state
        if self.options.exponent and any(state.get(weight) for weight in ascent.weights):
            groups = {weight: group for group in ascent.optimizer.param_groups for weight in group["params"]}
            for weight, part in zip(ascent.weights, direction, strict=True):
                part.copy_(self._conditioned(part, state.get(weight), groups[weight], ascent.loss_scale))
        return ascent.to_radius(direction, ascent.norm_of(direction)), norm

    def _conditioned(
        self, gradient: Tensor, state: dict[str, Any] | None, group: dict[str, Any], loss_scale: Tensor | None
    ) -> Tensor:
        """D^-k a, with its loss scale."""
        if not state:
            state = {"exp_avg_sq": torch.zeros_like(gradient), "step": torch.zeros(())}
        beta, wide = group["betas"][1], gradient.to(torch.promote_types(gradient.dtype, torch.float32))
        plain = wide if loss_scale is None else wide / loss_scale.to(wide)
        moment = (beta * state["exp_avg_sq"].to(wide.dtype)).addcmul_(plain, plain, value=1 - beta)
        if "max_exp_avg_sq" in state:
            torch.maximum(moment, state["max_exp_avg_sq"].to(wide.dtype), out=moment)
        started = 1 - beta ** (torch.as_tensor(state["step"]).double() + 1)
        denominator = moment.div_(started.to(moment)).sqrt_().add_(group["eps"])
        return wide * denominator.pow_(-self.options.exponent)
