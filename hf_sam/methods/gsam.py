"""GSAM: the perturbed loss and, where it costs nothing, the gap between the two losses."""

from dataclasses import dataclass

from torch import Tensor

from ..components import Description
from ..engine import GradientEngine
from ..options import option
from ..weights import EPSILON
from .combining import Combining, dot, paired


GSAM_BIBTEX = """@inproceedings{zhuang2022surrogate,
    title     = {Surrogate Gap Minimization Improves Sharpness-Aware Training},
    author    = {Zhuang, Juntang and Gong, Boqing and Yuan, Liangzhe and Cui, Yin and Adam, Hartwig and
                 Dvornek, Nicha and Tatikonda, Sekhar and Duncan, James and Liu, Ting},
    booktitle = {International Conference on Learning Representations},
    year      = {2022},
    url       = {https://arxiv.org/abs/2203.08065}
}"""


@dataclass(frozen=True)
class GSAMOptions:
    alpha: float = option(0.4, "α: weight of the part that closes the gap (0.4 and 0.6 in the paper)", lower=0.0)
    minimize_perturbed: bool = option(
        True, "start from p and close the gap (the paper); False: start from a, which its authors' code offers too"
    )


class GSAM(Combining):
    r"""
    Surrogate gap guided SAM (Zhuang et al. 2022, https://arxiv.org/abs/2203.08065, Algorithm 1):

        a = g(w; W),   p = g(w + ε; W)
        the optimizer steps with  p - α (a - (⟨a, p⟩ / ‖p‖²) p)
        `minimize_perturbed=False`:  a + α (p - (⟨p, a⟩ / ‖a‖²) a)

    What is subtracted is orthogonal to p, so that to first order the perturbed loss is left alone. α = 0 is SAM with
    the averaged ascent gradient. The paper ties ρ to the learning rate: `rho_schedule="learning_rate"` with `rho_end`.
    The decomposition is that of the averages over all ranks; the authors' code decomposes on each worker.
    """

    description = Description(
        name="GSAM",
        full_name="surrogate gap guided sharpness-aware minimization",
        story="GSAM lowers the loss at the worst point of a ball of radius rho around the weights, as SAM does, and "
        "the gap between that loss and the one at the weights, by the part of the plain gradient that is orthogonal "
        "to the perturbed one.",
        citations=(GSAM_BIBTEX,),
        gradients="2",
        sequential="2",
        memory="3",
        source="Zhuang et al. 2022, Algorithm 1",
    )
    options_class = GSAMOptions

    def combine(
        self, engine: GradientEngine, plain: dict[Tensor, Tensor], perturbed: dict[Tensor, Tensor]
    ) -> dict[Tensor, Tensor]:
        a, p = paired(plain, perturbed)
        alpha = self.options.alpha
        if alpha == 0:
            return perturbed if self.options.minimize_perturbed else plain
        kept, other, sign = (p, a, -1.0) if self.options.minimize_perturbed else (a, p, 1.0)
        share = dot(other, kept) / (dot(kept, kept) + EPSILON)
        # kept + sign · α · (other - share · kept)
        for one, two in zip(kept, other, strict=True):
            one.mul_((1.0 - sign * alpha * share).to(one)).add_(two, alpha=sign * alpha)
        return perturbed if self.options.minimize_perturbed else plain
