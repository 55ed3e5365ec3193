"""SAMPa: the gradient at the perturbed weights and the one that the next perturbation needs, at the same time."""

from contextlib import nullcontext

import torch
from torch import Tensor

from ..components import Conflict, Description
from ..engine import GradientEngine, Window, WindowResult
from ..lookahead import gradient_step, trial_step
from ..optimizer_checks import class_names
from ..parallel import PairExchange, Role
from ..parallel.exchange import share_scalars
from ..perturbations.base import matched
from ..rng import preserved_rng
from ..weights import global_norm, preserved_weights, remove_scale
from .base import PERTURBATION_PREFIX, Method, Update
from .pair_conflicts import GENERATES_INPUTS, WITHOUT_PAIRS, WITHOUT_PARALLEL_GRADIENTS
from .sam import SAM_BIBTEX


SAMPA_BIBTEX = """@inproceedings{xie2024sampa,
    title     = {{SAMPa}: Sharpness-aware Minimization Parallelized},
    author    = {Xie, Wanyun and Pethick, Thomas and Cevher, Volkan},
    booktitle = {Advances in Neural Information Processing Systems},
    year      = {2024},
    url       = {https://arxiv.org/abs/2410.10683}
}"""
# Beside the lookahead gradient, which goes by the names of the weights.
LOOKAHEAD_LOSS = "sampa/lookahead_loss"


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
    | of which data h_t is in the perturbation | `SAMConfig.ascent_scope` |

    On one process the two gradients are computed one after the other, on 2K ranks side by side by the two ranks of a
    pair. If there is no next window, the last update uses λ = 0.

    The loss that is logged for update t is that of W_t at y_t (at w_0 for the first), the perturbed one that of W_t at
    x̃_t. With `ascent_scope="micro_batch"` each of K pairs perturbs along the h_t of its own shard of the window, as in
    mSAM with m = K; y and the update have the average over all. (Our reading: the paper names the combination.)
    """

    description = Description(
        name="SAMPa",
        full_name="sharpness-aware minimization parallelized",
        story="SAMPa is sharpness-aware minimization (SAM), which looks for weights whose whole neighbourhood has a "
        "low loss, with its two gradients made independent of each other, so that they can be computed at the same "
        "time. The perturbation comes from a gradient at lookahead weights, and lambda weighs that gradient in the "
        "update.",
        citations=(SAMPA_BIBTEX, SAM_BIBTEX),
        gradients="2",
        sequential="1",
        memory="2",
        state="1",
        source="Xie, Pethick and Cevher 2024, Algorithm 1; the trial step of AdamW is our reading of their SGD script",
    )
    shared_options = ("rho", "sampa_lambda", "lookahead", "same_dropout_mask")
    conflicts = (
        *WITHOUT_PARALLEL_GRADIENTS,
        GENERATES_INPUTS,
        Conflict(
            option="ZeroRedundancyOptimizer",
            found=lambda s: (
                s.several_ranks and s.config.lookahead == "optimizer" and "ZeroRedundancyOptimizer" in class_names(s)
            ),
            why="since its step waits for all ranks, and only one of each pair takes the trial step",
            instead="set lookahead='gradient'",
            under="with lookahead='optimizer' on several ranks",
        ),
        *WITHOUT_PAIRS,
    )
    needs_upcoming_window = True
    runs_in_pairs = True
    #: The window of h_{t+1} is W_{t+1}, so the LOOKAHEAD rank of a pair is one ahead.
    looks_ahead = True

    def __init__(self, config, pairs=None):
        super().__init__(config, pairs)
        self.exchange = None if pairs is None else PairExchange(pairs)
        self._forget()

    def _forget(self) -> None:
        self.lookahead_gradient: dict[Tensor, Tensor] = {}
        # The loss of W_t that h_t came with; None after a checkpoint that does not have it.
        self.lookahead_loss: Tensor | None = None

    @property
    def lookahead_weight(self) -> float:
        """λ."""
        return self.config.sampa_lambda

    @property
    def gradients_per_update(self) -> float:
        return 2 if self.pairs is None else 1

    @property
    def ascends_by_pair(self) -> bool:
        """Pairs perturb along the h_t of their own data."""
        return self.config.ascent_scope == "micro_batch" and self.pairs is not None and self.pairs.count > 1

    @property
    def state_of_rank(self) -> bool:
        return self.ascends_by_pair

    @property
    def rank_of_statistics(self) -> int:
        return 0 if self.pairs is None else 1

    @property
    def part_of_window(self) -> tuple[int, int]:
        return (0, 1) if self.pairs is None else (self.pairs.rank % 2, 2)

    def reset(self) -> None:
        super().reset()
        self._forget()
        if self.exchange is not None:
            self.exchange.close()

    def update_gradient(self, engine: GradientEngine, update: Update) -> WindowResult:
        with nullcontext() if self.exchange is None else self.exchange.naming_failures():
            return super().update_gradient(engine, update)

    def window_gradient(self, engine: GradientEngine, update: Update) -> WindowResult:
        if not self.lookahead_gradient or self._has_overflowed(engine):
            self._compute_first_gradient(engine, update.window)
        if self.pairs is None:
            return self._one_after_the_other(engine, update)
        return self._side_by_side(engine, update)

    def stock_gradient(self, engine: GradientEngine, window: Window) -> WindowResult:
        self._forget()
        self._average_over_world(engine)
        return super().stock_gradient(engine, window)

    def _has_overflowed(self, engine: GradientEngine) -> bool:
        """Of an update that was skipped, by the scaler of fp16 or for this, h_t may be infinite: begin again."""
        if engine.scaler is None and not self.config.skip_nonfinite_updates:
            return False
        finite = global_norm(list(self.lookahead_gradient.values())).isfinite()
        if self.ascends_by_pair:
            # That of another pair may be infinite, and all have to begin again together.
            return bool(share_scalars([~finite], engine.device))
        return not bool(finite)

    def _compute_first_gradient(self, engine: GradientEngine, window: Window) -> None:
        """h_0 = g(w_0; W_0)."""
        # A LOOKAHEAD rank goes on from here and stays one window ahead of its partner: same masks for the same window.
        ahead = self.pairs is not None and self.pairs.role is Role.LOOKAHEAD and self.config.same_dropout_mask
        ahead = ahead and self.looks_ahead
        with nullcontext() if ahead else preserved_rng(engine.device, fresh=not self.config.same_dropout_mask):
            own = {} if self.ascends_by_pair else None
            loss, mean = self._at_weights(engine, window, counted=True, own=own)
            self.lookahead_gradient = own or mean
        if self.pairs is not None:
            (loss,) = share_scalars([loss], engine.device) / self.pairs.world_size
        self.lookahead_loss = loss

    def window_ahead(self, update: Update) -> Window | None:
        """Of which window h_{t+1} is the gradient, if there is one."""
        return update.upcoming

    def gradient_at_weights(self, engine: GradientEngine, window: Window) -> dict[Tensor, Tensor]:
        """g(w_t; W_t) without its loss scale, weight -> gradient, the same on all ranks."""
        return self._at_weights(engine, window, counted=False)[1]

    def _at_weights(
        self, engine: GradientEngine, window: Window, counted: bool, own: dict[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, dict[Tensor, Tensor]]:
        """With the loss. A PERTURBED rank also gets the gradient of its own data in `own`, if it is given."""
        loss_scale = engine.loss_scale
        self._average_over_world(engine, own, loss_scale)
        loss = engine.gradient(window, track_statistics=False, counted=counted, ascent=True)
        gradient = engine.take_gradients()
        remove_scale(gradient.values(), loss_scale)
        return loss, gradient

    def _average_over_world(
        self,
        engine: GradientEngine,
        own: dict[Tensor, Tensor] | None = None,
        loss_scale: Tensor | None = None,
    ) -> None:
        if self.exchange is not None:
            self.exchange.attach(engine.model, engine.weights)
            self.exchange.average_over_world(own, loss_scale)

    def _result(self, perturbed_loss: Tensor, norm: Tensor, next_loss: Tensor | None) -> WindowResult:
        """Both losses are those of W_t: its lookahead loss was computed in the update before."""
        loss = perturbed_loss if self.lookahead_loss is None else self.lookahead_loss.to(perturbed_loss)
        self.lookahead_loss = next_loss
        return WindowResult(loss=loss, perturbed_loss=perturbed_loss, ascent_grad_norm=norm)

    def _one_after_the_other(self, engine: GradientEngine, update: Update) -> WindowResult:
        loss_scale, upcoming = engine.loss_scale, self.window_ahead(update)
        perturbed_loss, norm = self._perturbed_pass(engine, update, keep=True)
        perturbed_gradient = engine.take_gradients()
        if upcoming is None:
            engine.put_gradients(perturbed_gradient)
            self.lookahead_gradient = {}
            return self._result(perturbed_loss, norm, None)

        # h_{t+1} draws the masks that p_{t+1} will draw, since the next update begins where the stream stands now.
        with preserved_rng(engine.device, fresh=not self.config.same_dropout_mask):
            loss = self._lookahead_pass(engine, upcoming, release=True)
        self.lookahead_gradient = engine.take_gradients()
        engine.put_gradients(_mix(perturbed_gradient, self.lookahead_gradient, self.lookahead_weight))
        remove_scale(self.lookahead_gradient.values(), loss_scale)
        return self._result(perturbed_loss, norm, loss)

    def _side_by_side(self, engine: GradientEngine, update: Update) -> WindowResult:
        upcoming = self.window_ahead(update)
        self.exchange.attach(engine.model, engine.weights)
        if upcoming is None:
            self.exchange.average_over_world()
            if self.ascends_by_pair:
                lookahead = self.lookahead_gradient
                self.exchange.hand_over(lookahead[weight] for weight in engine.weights if weight in lookahead)
        else:
            self.exchange.mix(
                self.lookahead_weight, self.lookahead_gradient, engine.loss_scale, of_pair=self.ascends_by_pair
            )
        nothing = torch.zeros((), device=engine.device)
        loss = perturbed_loss = norm = nothing
        longest = max(len(update.window), len(upcoming or ()))
        if self.pairs.role is Role.PERTURBED or upcoming is None:
            perturbed_loss, norm = self._perturbed_pass(engine, update, keep=False, passes=longest)
            if upcoming is not None:
                # By the partner, who tells of it.
                upcoming[0].record.counted = True
        else:
            self.advance(engine, self.lookahead_gradient, update, local=self.ascends_by_pair)
            engine.idle(upcoming, longest - len(upcoming))
            loss = self._lookahead_pass(engine, upcoming, release=False)

        ranks = self.pairs.world_size if upcoming is None else self.pairs.count
        loss, perturbed_loss, norm = share_scalars([loss, perturbed_loss, norm], engine.device) / ranks
        if upcoming is None:
            self.lookahead_gradient = {}
        return self._result(perturbed_loss, norm, None if upcoming is None else loss)

    def _perturbed_pass(
        self, engine: GradientEngine, update: Update, keep: bool, passes: int = 0
    ) -> tuple[Tensor, Tensor]:
        """`passes`: the most that any rank makes now."""
        ascent, local = dict(self.lookahead_gradient), self.ascends_by_pair
        with self.perturbed(engine, ascent, update, keep=keep, local=local) as norm:
            engine.idle(update.window, passes - len(update.window))
            # Where a run was resumed, the pass that the host would have counted was before it.
            counted = not update.window[0].record.counted and (self.looks_ahead or self.pairs is not None)
            loss = engine.gradient(update.window, track_statistics=False, counted=counted)
        return loss, norm

    def _lookahead_pass(self, engine: GradientEngine, upcoming: Window, release: bool) -> Tensor:
        step = trial_step if self.config.lookahead == "optimizer" else gradient_step
        with preserved_weights(list(self.lookahead_gradient)):
            step(engine.optimizer, self.lookahead_gradient)
            if release:
                self.lookahead_gradient = {}
            return engine.gradient(upcoming)

    def state_dict(self, names: dict[Tensor, str]) -> dict[str, Tensor]:
        lookahead = {names[weight]: gradient for weight, gradient in self.lookahead_gradient.items()}
        loss = {} if self.lookahead_loss is None else {LOOKAHEAD_LOSS: self.lookahead_loss}
        return super().state_dict(names) | lookahead | loss

    def load_state_dict(self, state: dict[str, Tensor], weights: dict[str, Tensor]) -> None:
        """
        Raises:
            `ValueError`: the checkpoint's lookahead gradient is not that of these weights.
        """
        super().load_state_dict(state, weights)
        self.lookahead_loss = state.get(LOOKAHEAD_LOSS)
        state = {name: value for name, value in state.items() if name != LOOKAHEAD_LOSS}
        state = {name: value for name, value in state.items() if not name.startswith(PERTURBATION_PREFIX)}
        self.lookahead_gradient = matched(state, weights, f"{self.description.name}'s lookahead gradient")


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
