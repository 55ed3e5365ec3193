"""R-SAM: the ascent gradient is taken at weights with noise, and the noise is a part of the perturbation."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..components import Description
from ..engine import GradientEngine
from ..options import option
from ..weights import displace, preserved_weights
from .base import NEEDS_ASCENT_GRADIENT, Update
from .sam import SAM, SAM_BIBTEX


RSAM_BIBTEX = """@inproceedings{liu2022random,
    title     = {Random Sharpness-Aware Minimization},
    author    = {Liu, Yong and Mai, Siqi and Cheng, Minhao and Chen, Xiangning and Hsieh, Cho-Jui and You, Yang},
    booktitle = {Advances in Neural Information Processing Systems},
    year      = {2022}
}"""


@dataclass(frozen=True)
class RandomSmoothingOptions:
    sigma: float = option(5e-4, "σ at the first update. The authors' default for ViT-B/16", lower=0.0)
    sigma_end: float = option(
        2.5e-3, "σ at the last update, reached by half a cosine. The authors' default", lower=0.0
    )


class RandomSmoothingSAM(SAM):
    r"""
    R-SAM (Liu et al. 2022). With u from the standard normal distribution, drawn anew for each update:

        n = σ_t ‖w‖_row u                    for each row of a weight the norm of that row; of a vector its norm
        b = g(w + n; W)
        q = b + n / 2
        ε = ρ q / (‖q‖₂ + 1e-12)             or another perturbation made from q; from w, not from w + n
        descent gradient = g(w + ε; W)

    The authors' direction is 2 b + n, the same. No gradient is taken at w itself, so the logged loss is that at w + n,
    and running statistics of BatchNorm come from there. With `ascent_scope="global"` all ranks draw the same u,
    otherwise each its own, as the authors' code does. The numbers depend on the seed of the run and the number of the
    update alone: a resumed run draws the same ones, and the random streams of the process are left alone.

    | symbol | where it is set |
    |---|---|
    | σ | `sigma`, `sigma_end` |
    | ρ | `SAMConfig.rho`; the authors' is in proportion to the learning rate, `rho_schedule="learning_rate"` |
    """

    description = Description(
        name="R-SAM",
        full_name="random sharpness-aware minimization",
        story="Random sharpness-aware minimization (R-SAM) takes the ascent gradient at weights with a little noise, "
        "in proportion to their norms, and perturbs the weights along that gradient and the noise.",
        citations=(RSAM_BIBTEX, SAM_BIBTEX),
        gradients="2",
        sequential="2",
        memory="1",
        source="the authors' code, RSAM-Optimizer/R-SAM@1ceba0e, vit_jax/train.py",
    )
    options_class = RandomSmoothingOptions
    conflicts = (*SAM.conflicts, NEEDS_ASCENT_GRADIENT)

    def ascent_gradient(
        self, engine: GradientEngine, update: Update, synchronize: bool
    ) -> tuple[Tensor, dict[Tensor, Tensor]]:
        weights = list(self.chosen_weights(engine))
        with preserved_weights(weights):
            for weight, noise in self._noise(update, weights):
                displace([weight], [noise])
            loss, ascent = self.ascend(engine, update.window, synchronize=synchronize)
        # Drawn once more, since it would have to be kept beside the copy of the weights.
        for weight, noise in self._noise(update, weights):
            if weight in ascent:
                scaled = noise if engine.loss_scale is None else noise * engine.loss_scale.to(noise)
                ascent[weight].add_(scaled, alpha=0.5)
        return loss, ascent

    @torch.no_grad()
    def _noise(self, update: Update, weights: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        start, end = self.options.sigma, self.options.sigma_end
        sigma = end + (start - end) * (1.0 + math.cos(math.pi * update.progress)) / 2.0
        shared = self.config.ascent_scope == "global"
        drawn = update.draws.normal("random smoothing", weights, shared)
        for weight, noise in zip(weights, drawn, strict=True):
            rows = tuple(range(1, weight.dim())) or None
            norm = torch.linalg.vector_norm(weight, dim=rows, keepdim=True)
            yield weight, noise.mul_(sigma * norm)
