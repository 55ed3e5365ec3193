"""What can be measured of a model or a run: sharpness, curvature, and how good the lookahead gradient of SAMPa is."""

from .sharpness import Sharpness, TopEigenvalue, hessian_top_eigenvalue, worst_case_sharpness
from .similarity import SAMPaSimilarity
from .window_callback import WindowCallback


__all__ = [
    "SAMPaSimilarity",
    "Sharpness",
    "TopEigenvalue",
    "WindowCallback",
    "hessian_top_eigenvalue",
    "worst_case_sharpness",
]
