"""FSAM: only the weights with the largest Fisher information are perturbed."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ..components import Description
from ..engine import normalization_modules
from ..options import option
from ..selection import matches
from .base import Ascent
from .masked import MaskedAscent, MaskedOptions, averaged, magnitudes
from .top import top_bits


FSAM_BIBTEX = """@inproceedings{zhong2022improving,
    title     = {Improving Sharpness-Aware Minimization with {F}isher Mask for Better Generalization on Language
                 Models},
    author    = {Zhong, Qihuang and Ding, Liang and Shen, Li and Mi, Peng and Liu, Juhua and Du, Bo and Tao, Dacheng},
    booktitle = {Findings of the Association for Computational Linguistics: EMNLP 2022},
    year      = {2022},
    url       = {https://arxiv.org/abs/2210.05497}
}"""


@dataclass(frozen=True)
class FisherOptions(MaskedOptions):
    keep: float = option(
        0.1, "share of the entries that can be masked which are perturbed; 1 is SAM", lower=0.0, upper=1.0
    )
    whole: list[str] = option(
        ["*bias*", "*embed*"],
        "weights that are not masked and perturbed whole, as patterns of names (those of perturb_modules); so are "
        "those of BatchNorm",
    )


class Fisher(MaskedAscent):
    """
    `F = a ⊙ a`, `M = 1` on the share `keep` of the entries with the largest F, all maskable weights together, made
    anew every `interval` updates; `ε = ρ M ⊙ a / (‖M ⊙ a‖₂ + 1e-12)` (Zhong et al. 2022,
    https://arxiv.org/abs/2210.05497). F is made from the gradient of the update, as in the authors' code, not from
    gradients of single examples.

    Biases, embeddings and BatchNorm are not masked (`whole`), as in their code, which divides by the norm of the whole
    gradient: `norm="whole"`. The count of entries is exact.
    """

    description = Description(
        name="FSAM",
        full_name="along the gradient, of the weights with the largest Fisher information",
        story="Only the share of the weights with the largest Fisher information, measured by the squared gradient, "
        "is perturbed (FSAM).",
        citations=(FSAM_BIBTEX,),
        gradients="1",
        state="1/32",
        source="Zhong et al. 2022 and their code, which divides by the norm of the whole gradient",
    )
    options_class = FisherOptions

    def __init__(self, options: Any = None):
        super().__init__(options)
        self._batch_norm: set[Tensor] = set()

    def choose(self, model: nn.Module) -> Collection[Tensor] | None:
        layers = normalization_modules(model)
        self._batch_norm = {weight for layer in layers for weight in layer.parameters(recurse=False)}
        return None

    def make(self, ascent: Ascent) -> dict[Tensor, Tensor] | None:
        gradients = averaged(ascent)
        if gradients is None:
            return None
        maskable = [weight for weight in ascent.names if not self._is_whole(weight, ascent.names[weight])]
        count = round(self.options.keep * sum(weight.numel() for weight in maskable))
        # The square root of F has the same order.
        return dict(zip(maskable, top_bits(magnitudes(gradients, maskable), count), strict=True))

    def _is_whole(self, weight: Tensor, name: str) -> bool:
        named = bool(self.options.whole) and matches(name, self.options.whole)
        return named or weight in self._batch_norm
