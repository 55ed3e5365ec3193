"""AE-SAM: a SAM step where the gradient is unusually large, else a plain one."""

import math
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from ..components import Description
from ..engine import GradientEngine, WindowResult
from ..options import option
from ..rng import RandomState, preserved_rng
from ..weights import global_norm
from .base import Method, Update
from .combining import WHOLE_WINDOW_CONFLICTS


AE_SAM_BIBTEX = """@inproceedings{jiang2023adaptive,
    title     = {An Adaptive Policy to Employ Sharpness-Aware Minimization},
    author    = {Jiang, Weisen and Yang, Hansi and Zhang, Yu and Kwok, James},
    booktitle = {International Conference on Learning Representations},
    year      = {2023},
    url       = {https://arxiv.org/abs/2304.14647}
}"""
STATE_NAME = "ae_sam/moments"


@dataclass(frozen=True)
class AESAMOptions:
    decay: float = option(0.9, "δ: decay of the moving averages of ‖a‖² and of its variance", lower=0.0, upper=1.0)
    first: float = option(1.0, "λ₂: threshold at the start of training, in standard deviations above the average")
    last: float = option(-1.0, "λ₁: the same at its end; the lower, the more updates are SAM's")


class AESAM(Method):
    r"""
    Adaptive policy to employ SAM (AE-SAM; Jiang et al. 2023, https://arxiv.org/abs/2304.14647). With a = g(w; W):

        μ ← δ μ + (1 - δ) ‖a‖²,   v ← δ v + (1 - δ) (‖a‖² - μ)²,   c_t = λ₂ + (λ₁ - λ₂) t / T
        the optimizer steps with g(w + ε; W) if ‖a‖² ≥ μ + c_t √v, else with a

    The first update has nothing to compare with and is one of SAM; μ starts at its ‖a‖², v at 0. The norm is that of
    the average over all ranks, so that all of them decide alike. The authors' code was not at hand: formula and
    defaults are as two later papers give them. The moving averages are saved with checkpoints.
    """

    description = Description(
        name="AE-SAM",
        full_name="SAM where the gradient is unusually large",
        story="AE-SAM takes a step of sharpness-aware minimization (SAM) where the norm of the gradient is unusually "
        "large, compared with its moving average, and a plain step elsewhere. Over the run the threshold falls, so "
        "that more and more steps are SAM's.",
        citations=(AE_SAM_BIBTEX,),
        gradients="1 + share of SAM steps",
        sequential="1 + share of SAM steps",
        memory="2",
        source="Jiang et al. 2023; formula and defaults as two later papers give them (unverified)",
    )
    options_class = AESAMOptions
    conflicts = WHOLE_WINDOW_CONFLICTS
    gradients_per_update = 2

    def __init__(self, config, pairs=None):
        super().__init__(config, pairs)
        self.mean: float | None = None
        self.variance = 0.0

    def window_gradient(self, engine: GradientEngine, update: Update) -> WindowResult:
        before = RandomState.capture(engine.device)
        loss = engine.gradient(update.window)
        plain = engine.take_gradients()
        if not self._is_large(engine, plain, update):
            engine.put_gradients(plain)
            return WindowResult(loss=loss, perturbed_loss=None, ascent_grad_norm=None)
        same = self.config.same_dropout_mask
        if same:
            # The same masks again, after which the streams stand where one step of the host leaves them.
            before.restore()
        with (
            nullcontext() if same else preserved_rng(engine.device, fresh=True),
            self.perturbed(engine, plain, update, engine.loss_scale) as norm,
        ):
            perturbed_loss = engine.gradient(update.window, track_statistics=False)
        return WindowResult(loss=loss, perturbed_loss=perturbed_loss, ascent_grad_norm=norm)

    def _is_large(self, engine: GradientEngine, plain: dict[Tensor, Tensor], update: Update) -> bool:
        norm = float(global_norm(list(plain.values())))
        squared = (norm if engine.loss_scale is None else norm / float(engine.loss_scale)) ** 2
        if not math.isfinite(squared):
            # Nothing to learn from: under fp16 the update is skipped.
            return False
        options = self.options
        self.mean = squared if self.mean is None else options.decay * self.mean + (1 - options.decay) * squared
        self.variance = options.decay * self.variance + (1 - options.decay) * (squared - self.mean) ** 2
        threshold = options.first + (options.last - options.first) * update.number / update.updates
        return squared >= self.mean + threshold * math.sqrt(self.variance)

    def reset(self) -> None:
        super().reset()
        self.mean, self.variance = None, 0.0

    def state_dict(self, names: dict[Tensor, str]) -> dict[str, Tensor]:
        moments = (
            {} if self.mean is None else {STATE_NAME: torch.tensor([self.mean, self.variance], dtype=torch.float64)}
        )
        return super().state_dict(names) | moments

    def load_state_dict(self, state: dict[str, Tensor], weights: dict[str, Tensor]) -> None:
        super().load_state_dict(state, weights)
        if STATE_NAME in state:
            self.mean, self.variance = state[STATE_NAME].tolist()
