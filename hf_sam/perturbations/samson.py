"""ASAM whose scale is measured against the largest weight of each tensor."""

import torch
from torch import Tensor

from ..components import Description
from .asam import ASAM, ASAM_BIBTEX


SAMSON_BIBTEX = """@article{mordido2022samson,
    title   = {{SAMSON}: Sharpness-Aware Minimization Scaled by Outlier Normalization for Improving {DNN}
               Generalization and Robustness},
    author  = {Mordido, Gon{\\c{c}}alo and Henwood, S{\\'e}bastien and Chandar, Sarath and
               Leduc-Primeau, Fran{\\c{c}}ois},
    journal = {arXiv preprint arXiv:2211.11561},
    year    = {2022}
}"""


class SAMSON(ASAM):
    """
    `T = |w| / max|w| + η`, with the maximum of each tensor, in the formula of [`~hf_sam.perturbations.asam.ASAM`].
    This T is **ours**: of Mordido et al. 2022 (https://arxiv.org/abs/2211.11561) only the idea, to divide by a measure
    of the range of a layer's weights, was at hand, no formula and no code. T is at most 1 + η, so that ρ is nearer to
    that of SAM.
    """

    description = Description(
        name="SAMSON",
        full_name="in proportion to each weight's size within its tensor",
        story="Each weight moves in proportion to its size, measured against the largest weight of its tensor "
        "(adaptive sharpness-aware minimization with a normalised range).",
        citations=(SAMSON_BIBTEX, ASAM_BIBTEX),
        gradients="1",
        source="our own formula, after the idea of Mordido et al. 2022, whose formula was not at hand",
    )

    def scale(self, weight: Tensor) -> Tensor:
        size = weight.abs()
        largest = size.max() if size.numel() else size.sum()
        return size.div_(largest.clamp_min(torch.finfo(size.dtype).tiny)).add_(self.options.eta)
