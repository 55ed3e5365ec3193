"""LookSAM: a SAM step now and then, and its direction away from the gradient in between."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..components import Description
from ..engine import GradientEngine, WindowResult
from ..options import option
from ..weights import EPSILON, global_norm
from .base import Update
from .combining import Combining, add_scaled, dot, paired


LOOKSAM_BIBTEX = """@inproceedings{liu2022towards,
    title     = {Towards Efficient and Scalable Sharpness-Aware Minimization},
    author    = {Liu, Yong and Mai, Siqi and Chen, Xiangning and Hsieh, Cho-Jui and You, Yang},
    booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
    year      = {2022},
    url       = {https://arxiv.org/abs/2203.02714}
}"""
# Below this share of ‖p‖ what is left of p beside a is rounding noise, and its direction means nothing.
PARALLEL = 1e-6


@dataclass(frozen=True)
class LookSAMOptions:
    k: int = option(5, "k: every k-th update is one of SAM (5 in the paper's main setting)", lower=1)
    alpha: float = option(
        0.2,
        "α: length of the direction that is used again, in lengths of the gradient (0.2 to 0.7 in code)",
        lower=0.0,
    )


class LookSAM(Combining):
    r"""
    LookSAM (Liu et al. 2022, https://arxiv.org/abs/2203.02714, Algorithm 1). With a = g(w; W), for update t:

        t mod k = 0:  p = g(w + ε; W), the optimizer steps with p,  u = v / ‖v‖  with  v = p - (⟨p, a⟩ / ‖a‖²) a
        else:         the optimizer steps with a + α ‖a‖ u

    with one norm over all weights. k = 1 is SAM with the averaged ascent gradient. Where p is parallel to a, u is 0.
    The direction u is kept between updates and saved with checkpoints.
    """

    description = Description(
        name="LookSAM",
        full_name="SAM every k-th update, its direction used again in between",
        story="LookSAM takes a step of sharpness-aware minimization (SAM) every k-th update. In between it costs one "
        "gradient, to which it adds the part of the last perturbed gradient that was orthogonal to the plain one.",
        citations=(LOOKSAM_BIBTEX,),
        gradients="1 + 1/k",
        sequential="1 + 1/k",
        memory="3",
        state="1",
        source="Liu et al. 2022, Algorithm 1; the norms are global, as in the paper",
    )
    options_class = LookSAMOptions

    def __init__(self, config, pairs=None):
        super().__init__(config, pairs)
        self.direction: dict[Tensor, Tensor] = {}

    def window_gradient(self, engine: GradientEngine, update: Update) -> WindowResult:
        if update.number % self.options.k == 0 or not self.direction:
            return super().window_gradient(engine, update)
        loss = engine.gradient(update.window)
        gradients = engine.take_gradients()
        shared = [weight for weight in gradients if weight in self.direction]
        length = self.options.alpha * global_norm(list(gradients.values()))
        with torch.no_grad():
            add_scaled([gradients[w] for w in shared], [self.direction[w] for w in shared], length)
        engine.put_gradients(gradients)
        return WindowResult(loss=loss, perturbed_loss=None, ascent_grad_norm=None)

    def combine(
        self, engine: GradientEngine, plain: dict[Tensor, Tensor], perturbed: dict[Tensor, Tensor]
    ) -> dict[Tensor, Tensor]:
        a, p = paired(plain, perturbed)
        share = dot(p, a) / (dot(a, a) + EPSILON)
        # The memory of a becomes that of u: v = p - share · a.
        for one, two in zip(a, p, strict=True):
            one.mul_(-share.to(one)).add_(two)
        norm, whole = global_norm(a), global_norm(p)
        factor = torch.where(norm > PARALLEL * whole, 1.0 / (norm + EPSILON), torch.zeros_like(norm))
        for one in a:
            one.mul_(factor.to(one))
        # Under fp16 an update with a gradient that is not finite is skipped; its direction must not be kept either.
        overflowed = engine.scaler is not None and not bool(whole.isfinite())
        self.direction = {} if overflowed else plain
        return perturbed

    def reset(self) -> None:
        super().reset()
        self.direction = {}

    def state_dict(self, names: dict[Tensor, str]) -> dict[str, Tensor]:
        return super().state_dict(names) | {f"looksam/{names[w]}": u for w, u in self.direction.items()}

    def load_state_dict(self, state: dict[str, Tensor], weights: dict[str, Tensor]) -> None:
        super().load_state_dict(state, weights)
        saved = {name: state[f"looksam/{name}"] for name in weights if f"looksam/{name}" in state}
        self.direction = {weights[name]: u.to(weights[name]) for name, u in saved.items()}
