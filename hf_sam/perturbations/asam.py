"""ASAM: each weight is perturbed in proportion to its own size, so that rescaling a layer changes nothing."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ..components import Description
from ..options import option
from ..selection import matches
from .base import Ascent, Perturbation


ASAM_BIBTEX = """@inproceedings{kwon2021asam,
    title     = {{ASAM}: Adaptive Sharpness-Aware Minimization for Scale-Invariant Learning of Deep Neural Networks},
    author    = {Kwon, Jungmin and Kim, Jeongseop and Park, Hyunseo and Choi, In Kwon},
    booktitle = {International Conference on Machine Learning},
    year      = {2021},
    url       = {https://arxiv.org/abs/2102.11600}
}"""
SCALED_HELP = (
    "weights that are scaled, as patterns of names (those of perturb_modules); the others have T = 1. The authors "
    "scale what has 'weight' in its name, so LayerNorm and embeddings too"
)
ETA_HELP = (
    "eta, added to the scale, so that a weight that is 0 (LoRA's B at first) moves too; 0.01 in the authors' class"
)


@dataclass(frozen=True)
class ASAMOptions:
    eta: float = option(0.01, ETA_HELP, lower=0.0)
    scaled: list[str] = option(["*weight*"], SCALED_HELP)


def stretched(
    ascent: Ascent, patterns: list[str], scale_of: Callable[[Tensor], Tensor]
) -> tuple[list[Tensor], Tensor]:
    """
    `ρ T² a / ‖T a‖`, element by element, and ‖a‖.

    Args:
        patterns (`list[str]`): which weights have a T, by name; that of the others is 1.
        scale_of (`Callable`): weight -> T, of its shape, in memory of its own.
    """
    norm, direction = ascent.norm, ascent.direction()

    def stretch() -> None:
        for weight, part in zip(ascent.weights, direction, strict=True):
            if patterns and matches(ascent.names[weight], patterns):
                part.mul_(scale_of(weight.detach()))

    stretch()
    length = ascent.norm_of(direction)
    stretch()
    return ascent.to_radius(direction, length), norm


class ASAM(Perturbation):
    """
    `T = |w| + η`, `ε = ρ T² a / (‖T a‖₂ + 1e-12)`, element by element, with one norm over all weights (Kwon et al.
    2021, https://arxiv.org/abs/2102.11600, with p = 2 and element-wise T). Weights that are not `scaled` have T = 1;
    where none is, this is SAM.

    ρ has another unit than in SAM: about ten times as large is usual.
    """

    description = Description(
        name="ASAM",
        full_name="in proportion to each weight's own size",
        story="The perturbation is adaptive (ASAM): each weight moves in proportion to its own size, so that the "
        "sharpness does not depend on how the layers are scaled.",
        citations=(ASAM_BIBTEX,),
        gradients="1",
        source="Kwon et al. 2021; the defaults are those of the authors' class, which were tuned for images",
    )
    options_class = ASAMOptions

    def __call__(self, ascent: Ascent) -> tuple[list[Tensor], Tensor]:
        return stretched(ascent, self.options.scaled, self.scale)

    def scale(self, weight: Tensor) -> Tensor:
        """T of one tensor."""
        return weight.abs().add_(self.options.eta)
