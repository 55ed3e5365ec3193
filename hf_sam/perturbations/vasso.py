"""VaSSO: along a moving average of the ascent gradients, which varies less from window to window."""

from dataclasses import dataclass

from torch import Tensor

from ..components import Description
from ..options import option
from .moving_average import AveragedAscent


VASSO_BIBTEX = """@inproceedings{li2023vasso,
    title     = {Enhancing Sharpness-Aware Optimization Through Variance Suppression},
    author    = {Li, Bingcong and Giannakis, Georgios B.},
    booktitle = {Advances in Neural Information Processing Systems},
    year      = {2023},
    url       = {https://arxiv.org/abs/2309.15639}
}"""


@dataclass(frozen=True)
class VaSSOOptions:
    theta: float = option(
        0.9, "θ, share of the new gradient in the average; 1 is SAM. The authors' default", lower=0.0, upper=1.0
    )


class VaSSO(AveragedAscent):
    r"""
    Variance-suppressed sharpness-aware optimization (Li and Giannakis 2023, https://arxiv.org/abs/2309.15639):

        s ← (1 - θ) s + θ a          the first time s = a
        ε = ρ s / (‖s‖₂ + 1e-12)

    | symbol | option |
    |---|---|
    | θ | `theta` |
    """

    description = Description(
        name="VaSSO",
        full_name="along a moving average of the gradients (VaSSO)",
        story="The perturbation points along a moving average of the ascent gradients instead of the last one "
        "(VaSSO), so that it does not turn with every batch, and has length rho.",
        citations=(VASSO_BIBTEX,),
        gradients="1",
        memory="0",
        state="1",
        source="the authors' code, BingcongLi/VaSSO@3524bad, solver/vasso.py",
    )
    options_class = VaSSOOptions

    @property
    def share(self) -> float:
        return self.options.theta

    def direction(self, gradient: Tensor, average: Tensor, is_first: bool) -> Tensor:
        return average
