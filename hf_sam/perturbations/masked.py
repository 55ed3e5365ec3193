"""Perturbations of some entries only: in goes a gradient now and then, out comes a mask that holds for a while."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..options import option
from ..parallel.exchange import average
from ..weights import global_norm
from .base import Ascent, Perturbation
from .top import Keys, apply_bits, flat_pieces, keys_of


MADE_AT = "made_at"


@dataclass(frozen=True)
class MaskedOptions:
    interval: int = option(
        100, "updates from one mask to the next (the mask is that of the first micro-batch with micro_batch)", lower=1
    )
    norm: Literal["masked", "whole"] = option(
        "masked",
        "what the direction is divided by: 'masked': the norm of what is perturbed, so that its length is rho; "
        "'whole': that of the whole gradient, as in the authors' code, so that it is shorter",
    )


class MaskedAscent(Perturbation):
    """
    `ε = ρ M ⊙ a / (‖M ⊙ a‖₂ + 1e-12)` with a mask M of one bit for each weight, made anew every `interval` updates.
    Weights without bits are perturbed whole.

    The mask is the same on all ranks: where the ascent gradient is a rank's own, its mean over the ranks is taken for
    the mask, with one more exchange of gradients every `interval` updates. In SAMPa it is made from h, on both ranks
    of a pair. A gradient that is not finite leaves the mask as it is, and the next update tries again.
    """

    options_class = MaskedOptions

    def __init__(self, options=None):
        super().__init__(options)
        self.reset()

    def reset(self) -> None:
        self.bits: dict[Tensor, Tensor] = {}
        self.made_at: int | None = None

    @abstractmethod
    def make(self, ascent: Ascent) -> dict[Tensor, Tensor] | None:
        """The next mask, weight -> packed bits; `None` if it cannot be made now. Called on all ranks together."""

    @torch.no_grad()
    def advance(self, ascent: Ascent) -> None:
        if self.made_at is not None and ascent.update - self.made_at < self.options.interval:
            return
        bits = self.make(ascent)
        if bits is not None:
            self.bits, self.made_at = bits, ascent.update

    @torch.no_grad()
    def __call__(self, ascent: Ascent) -> tuple[list[Tensor], Tensor]:
        norm, direction = ascent.norm, ascent.direction()
        for weight, part in zip(ascent.weights, direction, strict=True):
            if weight in self.bits:
                apply_bits(self.bits[weight], part)
        length = norm if self.options.norm == "whole" else ascent.norm_of(direction)
        return ascent.to_radius(direction, length), norm

    def state_dict(self, names: dict[Tensor, str]) -> dict[str, Tensor]:
        if self.made_at is None:
            return {}
        return {names[weight]: bits for weight, bits in self.bits.items()} | {MADE_AT: torch.tensor(self.made_at)}

    def load_state_dict(self, state: dict[str, Tensor], weights: dict[str, Tensor]) -> None:
        """
        Raises:
            `ValueError`: the mask is not one of these weights.
        """
        self.reset()
        state = dict(state)
        if MADE_AT not in state:
            return
        self.made_at = int(state.pop(MADE_AT))
        for name, bits in state.items():
            if name not in weights or len(bits) != -(-weights[name].numel() // 8):
                raise ValueError(
                    f"The checkpoint holds a mask of {len(bits)} bytes for {name!r}, which is not that of a weight of "
                    "this model: resume with the same model."
                )
            self.bits[weights[name]] = bits.to(weights[name].device)


def averaged(ascent: Ascent) -> dict[Tensor, Tensor] | None:
    """
    The ascent gradient of the weights that have one, the same on all ranks; `None` if it is not finite.

    Where it is a rank's own, its average over the ranks is a copy, in float32 or wider, of all weights that are
    perturbed: a weight may have a gradient on one rank and not on another.
    """
    gradients = dict(zip(ascent.weights, ascent.gradients, strict=True))
    if ascent.local:
        gradients = {weight: _wide(gradients.get(weight), weight) for weight in ascent.names}
        average(gradients.values())
    return gradients if bool(global_norm(list(gradients.values())).isfinite()) else None


def _wide(gradient: Tensor | None, weight: Tensor) -> Tensor:
    dtype = torch.promote_types(weight.dtype, torch.float32)
    return torch.zeros_like(weight, dtype=dtype) if gradient is None else gradient.to(dtype, copy=True)


def magnitudes(gradients: dict[Tensor, Tensor], weights: Sequence[Tensor]) -> list[Keys]:
    """Keys in the order of |gradient|, for each of `weights`; 0 where there is no gradient."""

    def keys(weight: Tensor) -> Iterator[Tensor]:
        gradient = gradients.get(weight)
        for piece in flat_pieces(weight.detach() if gradient is None else gradient):
            yield torch.ones_like(piece, dtype=torch.int32) if gradient is None else keys_of(piece.abs())

    return [lambda weight=weight: keys(weight) for weight in weights]
