"""OptSAM, also S2-SAM: along the perturbed gradient of the update before, which is known before the window is."""

from typing import Any

import torch
from torch import Tensor

from ..components import Description
from ..engine import GradientEngine
from ..weights import EPSILON, global_norm, scale
from .base import Ascent, Perturbation, matched


S2SAM_BIBTEX = """@inproceedings{ji2024s2sam,
    title     = {A Single-Step, Sharpness-Aware Minimization is All You Need to Achieve Efficient and Accurate Sparse
                 Training},
    author    = {Ji, Jie and Li, Gen and Fu, Jingjing and Afghah, Fatemeh and Guo, Linke and Yuan, Xiaoyong and
                 Ma, Xiaolong},
    booktitle = {Advances in Neural Information Processing Systems},
    year      = {2024}
}"""


class PreviousAscent(Perturbation):
    r"""
    `ε_t = ρ p_{t-1} / (‖p_{t-1}‖₂ + 1e-12)`, with p_{t-1} the gradient that the optimizer was given at the last update
    that perturbed and was not skipped, before clipping: the perturbed one, averaged over all ranks whatever
    `ascent_scope` is. The first update is not perturbed.

    It does not converge where SAM does: on f(x) = ‖x‖² it stalls at distance ρ from the minimum, since it perturbs
    along a gradient that was itself taken away from the minimum. `method="stale"`, which keeps the gradient at the
    weights, does converge. One gradient per update, at the perturbed weights: `loss` in the log is the perturbed one.
    """

    description = Description(
        name="OptSAM",
        full_name="along the perturbed gradient of the update before (OptSAM, S2-SAM)",
        story="The perturbation has length rho and points along the gradient of the update before, which was taken at "
        "perturbed weights (OptSAM, S2-SAM). It needs no gradient of its own, and stalls at a distance of rho from a "
        "minimum.",
        citations=(S2SAM_BIBTEX,),
        gradients="0",
        memory="0",
        state="1",
        source="the authors' code of S2-SAM, jjsrf/SSAM-NEURIPS2024@e7d1632, sam.py (which with torch 2 perturbs "
        "nothing); that OptSAM of Xie, Pethick and Cevher 2024 is the same rule is our reading",
    )
    needs_gradient = False

    def __init__(self, options: Any = None):
        super().__init__(options)
        self.gradient: dict[Tensor, Tensor] = {}

    @torch.no_grad()
    def __call__(self, ascent: Ascent) -> tuple[list[Tensor], Tensor]:
        displacement = [
            self.gradient[weight].clone() if weight in self.gradient else torch.zeros_like(weight)
            for weight in ascent.weights
        ]
        norm = global_norm(displacement)
        scale(displacement, ascent.rho / (norm + EPSILON))
        return displacement, norm

    @torch.no_grad()
    def conclude(self, engine: GradientEngine) -> None:
        if not engine.will_step:
            return
        # A copy, since the host clips and unscales what is in .grad.
        loss_scale = engine.loss_scale
        for weight in engine.weights:
            if weight.grad is None:
                self.gradient.pop(weight, None)
                continue
            kept = self.gradient.setdefault(weight, torch.empty_like(weight)).copy_(weight.grad)
            if loss_scale is not None:
                kept.div_(loss_scale.to(kept.device))

    def reset(self) -> None:
        self.gradient = {}

    def state_dict(self, names: dict[Tensor, str]) -> dict[str, Tensor]:
        return {names[weight]: gradient for weight, gradient in self.gradient.items()}

    def load_state_dict(self, state: dict[str, Tensor], weights: dict[str, Tensor]) -> None:
        """
        Raises:
            `ValueError`: the state is not that of these weights.
        """
        self.gradient = matched(state, weights, "the perturbed gradient of the update before")
