"""The gradient-norm penalty: between the gradient at the weights and the one at the worst point around them."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..components import Description
from ..engine import GradientEngine
from ..options import option
from .combining import Combining, paired


GNP_BIBTEX = """@inproceedings{zhao2022penalizing,
    title     = {Penalizing Gradient Norm for Efficiently Improving Generalization in Deep Learning},
    author    = {Zhao, Yang and Zhang, Hao and Hu, Xiuyuan},
    booktitle = {International Conference on Machine Learning},
    year      = {2022},
    url       = {https://arxiv.org/abs/2202.03599}
}"""
WSAM_BIBTEX = """@inproceedings{yue2023sharpness,
    title     = {Sharpness-Aware Minimization Revisited: Weighted Sharpness as a Regularization Term},
    author    = {Yue, Yun and Jiang, Jiadi and Ye, Zhiling and Gao, Ning and Liu, Yongchao and Zhang, Ke},
    booktitle = {ACM SIGKDD Conference on Knowledge Discovery and Data Mining},
    year      = {2023},
    url       = {https://arxiv.org/abs/2305.15817}
}"""


@dataclass(frozen=True)
class PenaltyOptions:
    alpha: float = option(
        0.8,
        "α: weight of the perturbed gradient, λ / r of GNP (0.8 in the authors' ViT and ResNet recipes) and "
        "γ / (1 - γ) of WSAM; 0 is the stock Trainer, 1 is SAM, above 1 goes beyond it",
        lower=0.0,
    )
    form: Literal["coupled", "decoupled"] = option(
        "coupled",
        "coupled: the optimizer steps with the mixture; decoupled (WSAM): with a, and then w ← w - η α (p - a)",
        choices=("coupled", "decoupled"),
    )


class Penalty(Combining):
    r"""
    A penalty on the norm of the gradient (GNP; Zhao, Zhang and Hu 2022, https://arxiv.org/abs/2202.03599,
    equation 12), which is also weighted SAM in its coupled form (WSAM; Yue et al. 2023, https://arxiv.org/abs/2305.15817):

        a = g(w; W),   p = g(w + ε; W)
        coupled:    the optimizer steps with (1 - α) a + α p
        decoupled:  the optimizer steps with a, then w ← w - η α (p - a)     (WSAM, Algorithm 1)

    | symbol | where it is set |
    |---|---|
    | α, form | `method_args` |
    | ρ (r of GNP) | `SAMConfig.rho` |

    The decoupled step is not preconditioned: under AdamW it may be tiny, or larger than AdamW's own. The authors of
    GNP ship a variant that mixes a / ‖a‖ with p; the formula of the paper is what is here.
    """

    description = Description(
        name="Gradient-norm penalty",
        full_name="penalty on the gradient norm (GNP), also weighted SAM (WSAM)",
        story="A penalty on the norm of the gradient: the optimizer steps with a mixture of the gradient at the "
        "weights and the one at the worst point, to first order, of a ball of radius rho around them. It is weighted "
        "SAM, too.",
        citations=(GNP_BIBTEX, WSAM_BIBTEX),
        gradients="2",
        sequential="2",
        memory="3",
        source="Zhao, Zhang and Hu 2022, equation 12; Yue et al. 2023, Algorithm 1",
    )
    options_class = PenaltyOptions

    def __init__(self, config, pairs=None):
        super().__init__(config, pairs)
        self._after_step = None

    def combine(
        self, engine: GradientEngine, plain: dict[Tensor, Tensor], perturbed: dict[Tensor, Tensor]
    ) -> dict[Tensor, Tensor]:
        a, p = paired(plain, perturbed)
        if self.options.form == "coupled":
            if a:
                torch._foreach_lerp_(a, p, self.options.alpha)
            return plain
        if a:
            torch._foreach_sub_(p, a)
        self._step_apart(engine, dict(zip(plain, p, strict=True)))
        return plain

    def _step_apart(self, engine: GradientEngine, difference: dict[Tensor, Tensor]) -> None:
        """Once the optimizer has stepped, and only if it does: fp16 may skip the update."""
        if self._after_step is not None:
            self._after_step.remove()
        loss_scale = engine.loss_scale

        @torch.no_grad()
        def move(optimizer, *_):
            self._after_step.remove()
            self._after_step = None
            for group in optimizer.param_groups:
                factor = -float(group["lr"]) * self.options.alpha
                for weight in group["params"]:
                    if weight in difference:
                        change = difference[weight]
                        weight.add_(change if loss_scale is None else change / loss_scale.to(change), alpha=factor)

        self._after_step = engine.optimizer.register_step_post_hook(move)

    def reset(self) -> None:
        super().reset()
        if self._after_step is not None:
            self._after_step.remove()
            self._after_step = None
