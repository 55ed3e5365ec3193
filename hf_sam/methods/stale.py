"""Stale SAM: perturb along the gradient of the update before, and compute the next one at the same time."""

from torch import Tensor

from ..components import Description
from ..engine import GradientEngine, Window, WindowResult
from .base import Update
from .pair_conflicts import GENERATES_INPUTS, WITHOUT_PAIRS, WITHOUT_PARALLEL_GRADIENTS
from .sam import SAM_BIBTEX
from .sampa import SAMPa


ASYNC_SAM_BIBTEX = """@article{jo2025asyncsam,
    title   = {Asynchronous Sharpness-Aware Minimization For Fast and Accurate Deep Learning},
    author  = {Jo, Junhyuk and Lim, Jihyun and Lee, Sunwoo},
    journal = {arXiv preprint arXiv:2503.11147},
    year    = {2025}
}"""


class StaleSAM(SAMPa):
    r"""
    Asynchronous SAM with a delay of one update (AsyncSAM, https://arxiv.org/abs/2503.11147). With the gradient at the
    weights of the update before, a_{t-1} = g(w_{t-1}; W_{t-1}), and a_{-1} = g(w_0; W_0), computed once:

        ε_t = ρ a_{t-1} / (‖a_{t-1}‖₂ + 1e-12)        or another perturbation made from a_{t-1}
        p_t = g(w_t + ε_t; W_t)      and at the same time      a_t = g(w_t; W_t)
        the optimizer steps from w_t with p_t

    It is SAMPa with λ = 0 and without the lookahead: a_{t-1} is of the weights and of the window before. On one
    process the two gradients are computed one after the other, on 2K ranks side by side by the two ranks of a pair.
    a_t may be that of a part of the window (`SAMConfig.ascent_fraction`). What a host collects for its log is, on one
    process, from the pass at w_t, and on a pair each rank's own.

    | symbol | where it is set |
    |---|---|
    | ρ | `SAMConfig.rho` |
    """

    description = Description(
        name="stale SAM",
        full_name="along the gradient of the update before (AsyncSAM with a delay of one update)",
        story="Stale SAM is sharpness-aware minimization (SAM), which looks for weights whose whole neighbourhood has "
        "a low loss, with the perturbation made from the gradient at the weights of the update before (AsyncSAM with "
        "a delay of one), so that its two gradients can be computed at the same time.",
        citations=(ASYNC_SAM_BIBTEX, SAM_BIBTEX),
        gradients="2",
        sequential="1",
        memory="2",
        state="1",
        source="the abstract of arXiv 2503.11147; the formulas, and that the gradient before the first update is "
        "taken at the first weights, are our reading",
    )
    shared_options = ("rho", "same_dropout_mask")
    conflicts = (*WITHOUT_PARALLEL_GRADIENTS, GENERATES_INPUTS, *WITHOUT_PAIRS)
    ascent_may_differ = True
    looks_ahead = False
    # Of the window before nothing is read, but the stream of windows draws the same data on both ranks of a pair.
    needs_upcoming_window = True

    @property
    def lookahead_weight(self) -> float:
        return 0.0

    @property
    def gradients_per_update(self) -> float:
        return 1 + self.config.ascent_fraction if self.pairs is None else 1

    def window_ahead(self, update: Update) -> Window | None:
        return update.window

    def _lookahead_pass(self, engine: GradientEngine, window: Window, release: bool) -> Tensor:
        if release:
            self.lookahead_gradient = {}
        return engine.gradient(window, ascent=True)

    def _result(self, perturbed_loss: Tensor, norm: Tensor, next_loss: Tensor | None) -> WindowResult:
        """Both losses are those of W_t, computed in this update."""
        loss = perturbed_loss if next_loss is None else next_loss
        return WindowResult(loss=loss, perturbed_loss=perturbed_loss, ascent_grad_norm=norm)
