"""SAM: the gradient of a window at the worst point, to first order, of a ball around the weights."""

import torch

from ..engine import GradientEngine, Window, WindowResult
from ..perturbation import NormalizedAscent, displace, preserved_weights
from ..rng import preserved_rng
from .base import Method


class SAM(Method):
    r"""
    Sharpness-aware minimization (Foret et al. 2021, https://arxiv.org/abs/2010.01412, Algorithm 1). For each window W:

        a = g(w; W)                          ascent gradient
        ε = ρ a / (‖a‖₂ + 1e-12)             perturbation
        descent gradient = g(w + ε; W)       what the optimizer steps with, from w

    | symbol | where it is set |
    |---|---|
    | ρ | `SAMConfig.rho` |
    | over which ranks and micro-batches g is averaged in a | `SAMConfig.ascent_scope` |
    """

    gradients_per_update = 2

    def __init__(self, config, pairs=None):
        super().__init__(config, pairs)
        self.perturbation = NormalizedAscent(config.rho)

    def window_gradient(self, engine: GradientEngine, window: Window, upcoming: Window | None = None) -> WindowResult:
        if self.config.ascent_scope != "micro_batch":
            return self._ascend_and_descend(engine, window, share_ascent=self.config.ascent_scope == "global")

        results = []
        for position, micro_batch in enumerate(window, start=1):
            last = position == len(window)
            results.append(self._ascend_and_descend(engine, [micro_batch], share_descent=last))
        return WindowResult(
            loss=sum(result.loss for result in results),
            perturbed_loss=sum(result.perturbed_loss for result in results),
            ascent_grad_norm=torch.stack([result.ascent_grad_norm for result in results]).mean(),
        )

    def _ascend_and_descend(
        self, engine: GradientEngine, window: Window, share_ascent: bool = False, share_descent: bool = True
    ) -> WindowResult:
        accumulated = engine.take_gradients()
        # The ascent pass is the one outside of the stream, so the stream moves as in one step of the host.
        with preserved_rng(engine.device, fresh=not self.config.same_dropout_mask):
            loss = engine.gradient(window, synchronize=share_ascent)
        ascent = engine.take_gradients()
        weights = [weight for weight in engine.weights if weight in ascent]
        gradients = [ascent[weight] for weight in weights]
        with preserved_weights(weights):
            displacement, norm = self.perturbation(gradients, weights, loss_scale=engine.loss_scale, consume=True)
            displace(weights, displacement)
            del ascent, gradients, displacement
            engine.put_gradients(accumulated)
            perturbed_loss = engine.gradient(window, synchronize=share_descent, track_statistics=False)
        return WindowResult(loss=loss, perturbed_loss=perturbed_loss, ascent_grad_norm=norm)
