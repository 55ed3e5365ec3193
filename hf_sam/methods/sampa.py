"""SAMPa: the gradient at the perturbed weights and the one that the next perturbation needs, at the same time."""

from contextlib import nullcontext

import torch
from torch import Tensor

from ..engine import GradientEngine, Window, WindowResult
from ..lookahead import gradient_step, trial_step
from ..parallel import PairExchange, Role
from ..parallel.exchange import share_scalars
from ..perturbation import NormalizedAscent, displace, global_norm, preserved_weights
from ..rng import preserved_rng
from .base import Method


class SAMPa(Method):
    r"""
    SAMPa-λ (Xie, Pethick and Cevher 2024, https://arxiv.org/abs/2410.10683, Algorithm 1) around any base optimizer.
    With the window W_t and h_t = g(y_t; W_t) known from the update before (h_0 = g(w_0; W_0)):

        x̃_t     = w_t + ρ h_t / (‖h_t‖₂ + 1e-12)        perturbed weights
        y_{t+1} = trial step of the optimizer from w_t with h_t, or w_t - η_t h_t     lookahead weights
        p_t     = g(x̃_t; W_t)      and at the same time      h_{t+1} = g(y_{t+1}; W_{t+1})
        the optimizer steps from w_t with (1 - λ) p_t + λ h_{t+1}

    | symbol | where it is set |
    |---|---|
    | ρ, λ | `SAMConfig.rho`, `SAMConfig.sampa_lambda` |
    | y | `SAMConfig.lookahead`; the paper gives no formula for AdamW |

    On one process the two gradients are computed one after the other, on 2K ranks side by side by the two ranks of a
    pair. If there is no next window, the last update uses λ = 0.
    """

    needs_upcoming_window = True
    runs_in_pairs = True

    def __init__(self, config, pairs=None):
        super().__init__(config, pairs)
        self.perturbation = NormalizedAscent(config.rho)
        self.exchange = None if pairs is None else PairExchange(pairs)
        self.lookahead_gradient: dict[Tensor, Tensor] = {}

    @property
    def gradients_per_update(self) -> int:
        return 2 if self.pairs is None else 1

    @property
    def rank_of_statistics(self) -> int:
        return 0 if self.pairs is None else 1

    def reset(self) -> None:
        self.lookahead_gradient = {}

    def window_gradient(self, engine: GradientEngine, window: Window, upcoming: Window | None = None) -> WindowResult:
        if not self.lookahead_gradient or self._has_overflowed(engine):
            self._compute_first_gradient(engine, window)
        if self.pairs is None:
            return self._one_after_the_other(engine, window, upcoming)
        return self._side_by_side(engine, window, upcoming)

    def _has_overflowed(self, engine: GradientEngine) -> bool:
        """Under fp16 h_t may be infinite. The scaler has skipped that update, and the recursion starts again."""
        if engine.scaler is None:
            return False
        return not bool(global_norm(list(self.lookahead_gradient.values())).isfinite())

    def _compute_first_gradient(self, engine: GradientEngine, window: Window) -> None:
        """h_0 = g(w_0; W_0)."""
        # A LOOKAHEAD rank goes on from here and stays one window ahead of its partner: same masks for the same window.
        ahead = self.pairs is not None and self.pairs.role is Role.LOOKAHEAD and self.config.same_dropout_mask
        with nullcontext() if ahead else preserved_rng(engine.device, fresh=not self.config.same_dropout_mask):
            self.lookahead_gradient = self.gradient_at_weights(engine, window)

    def gradient_at_weights(self, engine: GradientEngine, window: Window) -> dict[Tensor, Tensor]:
        """g(w_t; W_t) without its loss scale, weight -> gradient, the same on all ranks."""
        if self.exchange is not None:
            self.exchange.attach(engine.model, engine.weights)
            self.exchange.average_over_world()
        loss_scale = engine.loss_scale
        engine.gradient(window, track_statistics=False)
        gradient = engine.take_gradients()
        _remove_scale(gradient, loss_scale)
        return gradient

    def _one_after_the_other(self, engine: GradientEngine, window: Window, upcoming: Window | None) -> WindowResult:
        loss_scale = engine.loss_scale
        perturbed_loss, norm = self._perturbed_pass(engine, window, consume=False)
        perturbed_gradient = engine.take_gradients()
        if upcoming is None:
            engine.put_gradients(perturbed_gradient)
            self.lookahead_gradient = {}
            return WindowResult(loss=perturbed_loss, perturbed_loss=perturbed_loss, ascent_grad_norm=norm)

        # h_{t+1} draws the masks that p_{t+1} will draw, since the next update begins where the stream stands now.
        with preserved_rng(engine.device, fresh=not self.config.same_dropout_mask):
            loss = self._lookahead_pass(engine, upcoming, release=True)
        self.lookahead_gradient = engine.take_gradients()
        engine.put_gradients(_mix(perturbed_gradient, self.lookahead_gradient, self.config.sampa_lambda))
        _remove_scale(self.lookahead_gradient, loss_scale)
        return WindowResult(loss=loss, perturbed_loss=perturbed_loss, ascent_grad_norm=norm)

    def _side_by_side(self, engine: GradientEngine, window: Window, upcoming: Window | None) -> WindowResult:
        self.exchange.attach(engine.model, engine.weights)
        if upcoming is None:
            self.exchange.average_over_world()
        else:
            self.exchange.mix(self.config.sampa_lambda, self.lookahead_gradient, engine.loss_scale)
        nothing = torch.zeros((), device=engine.device)
        loss = perturbed_loss = norm = nothing
        if upcoming is not None:
            own = window if self.pairs.role is Role.PERTURBED else upcoming
            engine.idle(own, max(len(window), len(upcoming)) - len(own))
        if self.pairs.role is Role.PERTURBED or upcoming is None:
            perturbed_loss, norm = self._perturbed_pass(engine, window, consume=True)
        else:
            loss = self._lookahead_pass(engine, upcoming, release=False)

        ranks = self.pairs.world_size if upcoming is None else self.pairs.count
        loss, perturbed_loss, norm = share_scalars([loss, perturbed_loss, norm], engine.device) / ranks
        if upcoming is None:
            self.lookahead_gradient = {}
            loss = perturbed_loss
        return WindowResult(loss=loss, perturbed_loss=perturbed_loss, ascent_grad_norm=norm)

    def _perturbed_pass(self, engine: GradientEngine, window: Window, consume: bool) -> tuple[Tensor, Tensor]:
        # In the model's order, so that a resumed run adds up the same norm.
        weights = [weight for weight in engine.weights if weight in self.lookahead_gradient]
        gradients = [self.lookahead_gradient[weight] for weight in weights]
        with preserved_weights(weights):
            displacement, norm = self.perturbation(gradients, weights, consume=consume)
            displace(weights, displacement)
            del displacement, gradients
            loss = engine.gradient(window, track_statistics=False)
        return loss, norm

    def _lookahead_pass(self, engine: GradientEngine, upcoming: Window, release: bool) -> Tensor:
        step = trial_step if self.config.lookahead == "optimizer" else gradient_step
        with preserved_weights(list(self.lookahead_gradient)):
            step(engine.optimizer, self.lookahead_gradient)
            if release:
                self.lookahead_gradient = {}
            return engine.gradient(upcoming)

    def state_dict(self, names: dict[Tensor, str]) -> dict[str, Tensor]:
        return {names[weight]: gradient for weight, gradient in self.lookahead_gradient.items()}

    def load_state_dict(self, state: dict[str, Tensor], weights: dict[str, Tensor]) -> None:
        """
        Raises:
            `ValueError`: the checkpoint's lookahead gradient is not that of these weights.
        """
        unknown = [name for name in state if name not in weights or weights[name].shape != state[name].shape]
        if unknown:
            raise ValueError(
                f"The checkpoint holds SAMPa's lookahead gradient for {unknown[0]!r} (shape "
                f"{tuple(state[unknown[0]].shape)}), which the model does not have: resume with the same model."
            )
        self.lookahead_gradient = {
            weight: state[name].to(weight.device, weight.dtype) for name, weight in weights.items() if name in state
        }


@torch.no_grad()
def _mix(perturbed: dict[Tensor, Tensor], lookahead: dict[Tensor, Tensor], weight: float) -> dict[Tensor, Tensor]:
    """`(1 - λ) p + λ h`, written over p. A parameter may have a gradient in only one of the two."""
    for parameter, gradient in lookahead.items():
        if parameter not in perturbed:
            perturbed[parameter] = torch.zeros_like(gradient)
    shared = [parameter for parameter in perturbed if parameter in lookahead]
    if shared:
        torch._foreach_lerp_([perturbed[w] for w in shared], [lookahead[w] for w in shared], weight)
    alone = [gradient for parameter, gradient in perturbed.items() if parameter not in lookahead]
    if alone:
        torch._foreach_mul_(alone, 1.0 - weight)
    return perturbed


@torch.no_grad()
def _remove_scale(gradients: dict[Tensor, Tensor], loss_scale: Tensor | None) -> None:
    if loss_scale is not None:
        for device in {gradient.device for gradient in gradients.values()}:
            there = [gradient for gradient in gradients.values() if gradient.device == device]
            torch._foreach_div_(there, loss_scale.to(device))
