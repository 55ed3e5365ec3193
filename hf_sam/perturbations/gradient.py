"""The perturbation of SAM: along the gradient, to the surface of the ball."""

from torch import Tensor

from ..components import Description
from .base import Ascent, Perturbation


class GradientAscent(Perturbation):
    """
    `ε = ρ · a / (‖a‖₂ + 1e-12)` (Foret et al. 2021, https://arxiv.org/abs/2010.01412, equation 2 with p = 2), with one
    norm over all weights. A gradient of zero displaces nothing.
    """

    description = Description(
        name="gradient",
        full_name="along the gradient, in the L2 norm over all weights",
        story="The perturbation points along the gradient and has length rho, in the L2 norm over all trainable "
        "parameters.",
        gradients="1",
        source="Foret et al. 2021, equation 2",
    )

    def __call__(self, ascent: Ascent) -> tuple[list[Tensor], Tensor]:
        norm = ascent.norm
        return ascent.to_radius(ascent.direction(), norm), norm
