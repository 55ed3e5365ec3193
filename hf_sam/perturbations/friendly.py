"""F-SAM: along what is new in the ascent gradient, without what it has in common with the ones before."""

from dataclasses import dataclass

from torch import Tensor

from ..components import Description
from ..options import option
from .moving_average import AveragedAscent


FRIENDLY_BIBTEX = """@inproceedings{li2024friendly,
    title     = {Friendly Sharpness-Aware Minimization},
    author    = {Li, Tao and Zhou, Pan and He, Zhengbao and Cheng, Xinwen and Huang, Xiaolin},
    booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
    year      = {2024},
    url       = {https://arxiv.org/abs/2403.12350}
}"""


@dataclass(frozen=True)
class FriendlyOptions:
    sigma: float = option(
        1.0, "σ, share of the average that is taken out of the gradient; 0 is SAM. The authors' default", lower=0.0
    )
    momentum: float = option(
        0.9, "λ, share of the old average that is kept at each update. The authors' default", lower=0.01, upper=1.0
    )


class FriendlySAM(AveragedAscent):
    r"""
    F-SAM (Li et al. 2024, https://arxiv.org/abs/2403.12350), which takes an estimate of the full gradient out of the
    gradient of a window and perturbs along the noise that is left:

        q = a - σ m                  the first time q = a
        m ← λ m + (1 - λ) a          the first time m = a
        ε = ρ q / (‖q‖₂ + 1e-12)

    With large windows there is little noise, and a displacement of length ρ goes along what rounding leaves of it.

    | symbol | option |
    |---|---|
    | σ, λ | `sigma`, `momentum` |
    """

    description = Description(
        name="F-SAM",
        full_name="along the gradient without its moving average (friendly SAM)",
        story="The perturbation points along what the ascent gradient of a batch does not have in common with the "
        "moving average of those before (friendly SAM, F-SAM), and has length rho.",
        citations=(FRIENDLY_BIBTEX,),
        gradients="1",
        memory="0",
        state="1",
        source="the authors' code, nblt/F-SAM@2e2f989, utils.py; with ascent_scope='rank' each rank averages its own "
        "gradients, which is our reading",
    )
    options_class = FriendlyOptions

    @property
    def share(self) -> float:
        return 1.0 - self.options.momentum

    def direction(self, gradient: Tensor, average: Tensor, is_first: bool) -> Tensor:
        if is_first:
            return gradient
        # The average as it was before is (m - (1 - λ) a) / λ, so it need not be kept beside the new one.
        part = self.options.sigma / self.options.momentum
        return (gradient * (1.0 + part * self.share)).sub_(average, alpha=part)
