"""A method and a perturbation as somebody outside of the package would write them: one class and one line each."""

from dataclasses import dataclass

import torch

from hf_sam import register_method, register_perturbation
from hf_sam.components import Conflict, Description
from hf_sam.engine import WindowResult
from hf_sam.methods import Method
from hf_sam.options import option
from hf_sam.perturbations import Perturbation


@dataclass(frozen=True)
class SmoothedSignOptions:
    momentum: float = option(0.5, "share of the direction before", lower=0.0, upper=1.0)


@register_perturbation("smoothed_sign")
class SmoothedSign(Perturbation):
    """`s ← m s + (1 - m) sign(a)`, `ε = ρ s / sqrt(P)`, with P the number of weights."""

    description = Description(
        name="smoothed sign",
        full_name="along a moving average of the signs",
        story="The perturbation points along a moving average of the signs of the gradient.",
        citations=("@misc{sign, title = {Signs}}",),
        gradients="1",
        state="1",
    )
    options_class = SmoothedSignOptions
    conflicts = (
        Conflict(
            option="ascent_scope='micro_batch'",
            found=lambda s: s.config.ascent_scope == "micro_batch",
            why="since its average moves once per update",
            instead="use ascent_scope='rank'",
        ),
    )

    def __init__(self, options=None):
        super().__init__(options)
        self.average = {}

    def advance(self, ascent):
        for weight, gradient in zip(ascent.weights, ascent.gradients, strict=True):
            old = self.average.get(weight, torch.zeros_like(gradient))
            self.average[weight] = torch.lerp(gradient.sign(), old, self.options.momentum)

    def __call__(self, ascent):
        length = ascent.rho / sum(weight.numel() for weight in ascent.weights) ** 0.5
        return [length * self.average[weight] for weight in ascent.weights], ascent.norm

    def reset(self):
        self.average = {}

    def state_dict(self, names):
        return {names[weight]: value for weight, value in self.average.items()}

    def load_state_dict(self, state, weights):
        self.average = {weights[name]: value for name, value in state.items()}


@dataclass(frozen=True)
class HalfwayOptions:
    share: float = option(0.5, "share of the perturbed gradient", lower=0.0, upper=1.0)


@register_method("halfway")
class Halfway(Method):
    """Steps with `(1 - share) a + share p`."""

    description = Description(
        name="Halfway",
        full_name="between the two gradients of SAM",
        story="Halfway steps with a mean of both gradients of SAM.",
        citations=("@misc{halfway, title = {Halfway}}",),
        gradients="2",
        sequential="2",
        memory="2",
    )
    options_class = HalfwayOptions
    gradients_per_update = 2

    def window_gradient(self, engine, update):
        loss, plain = self.ascend(engine, update.window)
        with self.perturbed(engine, plain, update, engine.loss_scale, keep=True) as norm:
            perturbed_loss = engine.gradient(update.window, track_statistics=False)
        for weight, gradient in plain.items():
            weight.grad.lerp_(gradient, 1.0 - self.options.share)
        return WindowResult(loss, perturbed_loss, norm)
