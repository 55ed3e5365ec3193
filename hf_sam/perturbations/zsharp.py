"""ZSharp: of each matrix only the entries whose gradient stands out are perturbed."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..components import Description
from ..options import option
from .base import Ascent, Perturbation
from .top import flat_pieces, keys_of, kth_largest


ZSHARP_BIBTEX = """@article{yun2025zsharp,
    title   = {Sharpness-Aware Minimization with {Z}-Score Gradient Filtering},
    author  = {Yun, Vincent-Daniel},
    journal = {arXiv preprint arXiv:2505.02369},
    year    = {2025}
}"""


@dataclass(frozen=True)
class ZSharpOptions:
    quantile: float = option(
        0.95, "q, share of each matrix that is filtered out; 0 filters nothing, which is SAM", lower=0.0, upper=1.0
    )
    radius: Literal["global", "matrix"] = option(
        "global",
        "'global': rho is the norm over all weights, as the paper's formula has it; 'matrix': of each matrix by "
        "itself, as in the author's code, so that the whole is about sqrt(number of matrices) times as long",
    )


class ZSharp(Perturbation):
    """
    Of each tensor with two dimensions or more, `z = (a - mean(a)) / std(a)`, and the entries with |z| above the
    q-quantile of |z| are kept, the others set to 0; other tensors are kept whole. With a' what is kept,
    `ε = ρ a' / (‖a'‖₂ + 1e-12)` (Yun 2025, https://arxiv.org/abs/2505.02369). With `radius="matrix"` that holds for
    each matrix by itself, and the other tensors have `ρ a / (‖a‖₂ + 1e-12)` with SAM's norm over all weights, which is
    our reading.

    The order of |z| is that of |a - mean(a)|, so the quantile is found without sorting and without a limit on size
    (`torch.quantile` has one of 2^24 entries). The filter is made anew for each ascent and has no state.
    """

    description = Description(
        name="ZSharp",
        full_name="the entries of each matrix whose gradient stands out",
        story="Of each matrix only the entries whose gradient lies far from the mean of that matrix are perturbed "
        "(ZSharp).",
        citations=(ZSHARP_BIBTEX,),
        gradients="1",
        source="Yun 2025 and its code; in the form radius='matrix' that of vectors is our reading",
    )
    options_class = ZSharpOptions

    @torch.no_grad()
    def __call__(self, ascent: Ascent) -> tuple[list[Tensor], Tensor]:
        norm, direction = ascent.norm, ascent.direction()
        matrices = [part for part in direction if part.dim() > 1]
        if self.options.quantile > 0:
            for matrix in matrices:
                _filter(matrix, self.options.quantile)
        if self.options.radius == "global":
            return ascent.to_radius(direction, ascent.norm_of(direction)), norm
        for matrix in matrices:
            ascent.to_radius([matrix], ascent.norm_of([matrix]))
        ascent.to_radius([part for part in direction if part.dim() <= 1], norm)
        return direction, norm


def _filter(matrix: Tensor, quantile: float) -> None:
    """Set the entries up to the quantile to 0."""
    if not matrix.numel():
        return
    mean = matrix.mean(dtype=torch.promote_types(matrix.dtype, torch.float32))

    def keys(piece: Tensor) -> Tensor:
        return keys_of((piece - mean).abs())

    largest = matrix.numel() - math.floor(quantile * (matrix.numel() - 1))
    limit, _ = kth_largest(lambda: map(keys, flat_pieces(matrix)), largest)
    if matrix.is_contiguous():
        for piece in flat_pieces(matrix):
            piece.mul_(keys(piece) > limit)
    else:
        matrix.mul_(keys(matrix) > limit)
