"""SSAM: only a share of the weights is perturbed, chosen by Fisher information or by dynamic sparse training."""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..components import Conflict, Description
from ..engine import normalization_modules
from ..options import option
from ..parallel.exchange import average
from ..weights import global_norm
from .base import Ascent
from .masked import MaskedAscent, MaskedOptions, averaged, magnitudes
from .top import Keys, bit_pieces, flat_pieces, keys_of, top_bits


SSAM_BIBTEX = """@inproceedings{mi2022make,
    title     = {Make Sharpness-Aware Minimization Stronger: A Sparsified Perturbation Approach},
    author    = {Mi, Peng and Shen, Li and Ren, Tianhe and Zhou, Yiyi and Sun, Xiaoshuai and Ji, Rongrong and Tao,
                 Dacheng},
    booktitle = {Advances in Neural Information Processing Systems},
    year      = {2022},
    url       = {https://arxiv.org/abs/2210.05177}
}"""


@dataclass(frozen=True)
class SparseOptions(MaskedOptions):
    form: Literal["fisher", "dynamic"] = option("fisher", "'fisher': SSAM-F; 'dynamic': SSAM-D")
    sparsity: float = option(
        0.5,
        "s, share of the entries that is not perturbed; 0 is SAM (0.5 to 0.99 in the authors' runs)",
        lower=0.0,
        upper=1.0,
    )
    rows: int = option(1024, "of the form 'fisher': n, gradients of single rows, at most those of one window", lower=1)
    drop: float = option(
        0.5,
        "of the form 'dynamic': q0, share of the perturbed entries that is exchanged at first; goes to 0 along a "
        "cosine",
        lower=0.0,
        upper=1.0,
    )
    seed: int = option(0, "of the form 'dynamic': of the random entries", lower=0)


def _batch_norm_of_rows(setting) -> bool:
    return setting.config.perturbation_options.form == "fisher" and bool(normalization_modules(setting.model))


class Sparse(MaskedAscent):
    """
    `ε = ρ M ⊙ a / (‖M ⊙ a‖₂ + 1e-12)` with a mask M that leaves out the share s of all entries (Mi et al. 2022,
    https://arxiv.org/abs/2210.05177, Algorithms 1 and 2), made anew every `interval` updates.

    - `form="fisher"`, SSAM-F: M keeps the entries with the largest Fisher information, the sum of squared gradients of
      n single rows, each of them one more pass. The rows are those of the update's own window, at most all of it
      (the authors draw them from the whole data set), split over the ranks.
    - `form="dynamic"`, SSAM-D: M is random at first. Then, with `q_t = q0 (1 + cos(π t / T)) / 2` and P entries,
      min((1 - s) q_t, s) P of the perturbed entries, those with the smallest |a|, are exchanged for as many of the
      others, drawn from `seed` and t: the same ones on all ranks and in a resumed run. (In the authors' code
      (1 - s) q_t P are dropped, so that at s < q_t / (1 + q_t) fewer than (1 - s) P entries stay perturbed.)

    The authors divide by the norm of the whole gradient (`norm="whole"`), count the interval in epochs (5), and leave
    the first update of SSAM-F unperturbed. All counts are exact.
    """

    description = Description(
        name="SSAM",
        full_name="along the gradient, of a part of the weights",
        story="Only a share of the weights is perturbed (SSAM), chosen anew from time to time: those with the largest "
        "Fisher information, or by dropping those with the smallest gradients for others drawn at random.",
        citations=(SSAM_BIBTEX,),
        gradients="1",
        memory="1",
        state="1/32",
        source="Mi et al. 2022 and their code; the rows of the Fisher information are those of one window, and the "
        "interval counts updates",
    )
    options_class = SparseOptions
    conflicts = (
        Conflict(
            option="layers that keep running statistics (BatchNorm)",
            found=_batch_norm_of_rows,
            why="since the gradient of a single row has no statistics of a batch",
            instead="set 'form': 'dynamic' in perturbation_args, or use perturbation='fisher'",
            under="with form='fisher'",
        ),
    )

    def make(self, ascent: Ascent) -> dict[Tensor, Tensor] | None:
        weights = list(ascent.names)
        total = sum(weight.numel() for weight in weights)
        kept = round((1 - self.options.sparsity) * total)
        if self.options.form == "fisher":
            information = _fisher_information(ascent, self.options.rows)
            return None if information is None else _bits(weights, magnitudes(information, weights), kept)
        if self.bits.keys() != set(weights):
            return _bits(weights, [self._random_keys(ascent, weight) for weight in weights], kept)
        return self._exchanged(ascent, weights, kept, total)

    def _exchanged(self, ascent: Ascent, weights: list[Tensor], kept: int, total: int) -> dict[Tensor, Tensor] | None:
        gradients = averaged(ascent)
        if gradients is None:
            return None
        rate = self.options.drop * (1 + math.cos(math.pi * ascent.update / ascent.updates)) / 2
        exchanged = min(round(kept * rate), total - kept)
        largest = [
            _where(self.bits[w], w, True, keys)
            for w, keys in zip(weights, magnitudes(gradients, weights), strict=True)
        ]
        new = [_where(self.bits[w], w, False, self._random_keys(ascent, w)) for w in weights]
        staying, coming = top_bits(largest, kept - exchanged), top_bits(new, exchanged)
        return {w: stays | comes for w, stays, comes in zip(weights, staying, coming, strict=True)}

    def _random_keys(self, ascent: Ascent, weight: Tensor) -> Keys:
        seed = hashlib.sha256(f"{self.options.seed}/{ascent.update}/{ascent.names[weight]}".encode()).digest()

        def keys() -> Iterator[Tensor]:
            # On the host, so that every kind of device draws the same numbers.
            generator = torch.Generator().manual_seed(int.from_bytes(seed[:7], "big"))
            for piece in flat_pieces(weight.detach()):
                yield keys_of(torch.rand(len(piece), generator=generator).to(weight.device))

        return keys


def _bits(weights: list[Tensor], sources: list[Keys], count: int) -> dict[Tensor, Tensor]:
    return dict(zip(weights, top_bits(sources, count), strict=True))


def _where(packed: Tensor, weight: Tensor, value: bool, keys: Keys) -> Keys:
    """`keys` where the bit is `value`, and 0 elsewhere."""

    def some() -> Iterator[Tensor]:
        for bits, piece in zip(bit_pieces(packed, weight), keys(), strict=True):
            yield piece * (bits if value else ~bits)

    return some


def _fisher_information(ascent: Ascent, rows: int) -> dict[Tensor, Tensor] | None:
    """The sum of squared gradients of single rows over all ranks, up to a factor; `None` if it is not finite."""
    wide = {weight: torch.promote_types(weight.dtype, torch.float32) for weight in ascent.names}
    information = {weight: torch.zeros_like(weight, dtype=wide[weight]) for weight in ascent.names}
    for gradients in ascent.row_gradients(rows):
        # Taken out, so that the gradient of the next row finds their memory free.
        while gradients:
            weight, gradient = gradients.popitem()
            if weight in information:
                gradient = gradient.to(wide[weight])
                information[weight].addcmul_(gradient, gradient)
    average(information.values())
    return information if bool(global_norm(list(information.values())).isfinite()) else None
