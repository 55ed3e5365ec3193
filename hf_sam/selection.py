"""Which weights are perturbed: in go a model, patterns of names and a perturbation, out come the weights."""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn


# The end of a class's name, or of the name of a class that it derives from: every library has an RMSNorm of its own.
NORMALIZATION = re.compile(r"norm(\d+d|gated)?$", re.IGNORECASE)
NAMES_SHOWN = 3


def matches(name: str, patterns: Iterable[str]) -> bool:
    """
    Whether a weight is meant by `patterns` in the style of a shell. A pattern is compared with the whole name and with
    the names of the modules that the weight is in, so `encoder.layer.1` is all of that layer. A pattern with a leading
    `!` leaves out what it matches; where all patterns do, everything else is meant.
    """
    included = [pattern for pattern in patterns if not pattern.startswith("!")]
    excluded = [pattern[1:] for pattern in patterns if pattern.startswith("!")]
    return (not included or _any_matches(name, included)) and not _any_matches(name, excluded)


def _any_matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*") for pattern in patterns)


def normalization_weights(model: nn.Module) -> list[nn.Parameter]:
    """Those of LayerNorm, BatchNorm2d, T5LayerNorm, LlamaRMSNorm, ...: classes called so, whatever the weights are."""
    layers = (m for m in model.modules() if any(NORMALIZATION.search(cls.__name__) for cls in type(m).__mro__))
    return [weight for layer in layers for weight in layer.parameters(recurse=False)]


@dataclass(frozen=True)
class Selection:
    """
    The weights that a run perturbs.

    Args:
        names (`dict[Tensor, str]`): every parameter of the model and its name, the first one of a tied weight.
        chosen (`frozenset[Tensor]`, *optional*): those that are perturbed; `None` for all, also those that the
            optimizer has and the model does not.
    """

    names: dict[Tensor, str]
    chosen: frozenset[Tensor] | None = None

    def of(self, weights: Iterable[Tensor]) -> dict[Tensor, str]:
        """Those of `weights` that are perturbed, in the same order, with their names."""
        named = {weight: self.names.get(weight, f"weight {place}") for place, weight in enumerate(weights)}
        return named if self.chosen is None else {w: name for w, name in named.items() if w in self.chosen}


def select(model: nn.Module, patterns: Sequence[str] | None, perturbation: Any, named: str) -> Selection:
    """
    Args:
        model (`nn.Module`): without wrappers.
        patterns (`Sequence[str]`, *optional*): `SAMConfig.perturb_modules`.
        perturbation ([`~hf_sam.perturbations.Perturbation`]): is asked which weights it moves.
        named (`str`): what messages call the perturbation.

    Raises:
        `ValueError`: no trainable weight is left; the message has the option and some names.
    """
    aliases: dict[Tensor, list[str]] = {}
    for name, weight in model.named_parameters(remove_duplicate=False):
        aliases.setdefault(weight, []).append(name)
    names = {weight: own[0] for weight, own in aliases.items()}
    chosen = None
    if patterns is not None:
        chosen = frozenset(weight for weight, own in aliases.items() if _means(patterns, own))
        _check(chosen, names, f"SAMConfig.perturb_modules={list(patterns)!r}: no trainable weight is meant by it")
    moved = perturbation.choose(model)
    if moved is not None:
        chosen = frozenset(weight for weight in moved if chosen is None or weight in chosen)
        _check(chosen, names, f"{named}: {perturbation.nothing_chosen}")
    return Selection(names, chosen)


def _means(patterns: Sequence[str], names: list[str]) -> bool:
    """A tied weight has several names: one has to be included, and none left out."""
    left_out = [pattern for pattern in patterns if pattern.startswith("!")]
    return any(matches(name, patterns) for name in names) and all(matches(name, left_out) for name in names)


def _check(chosen: Collection[Tensor], names: dict[Tensor, str], problem: str) -> None:
    trainable = [name for weight, name in names.items() if weight.requires_grad]
    if trainable and not any(weight.requires_grad for weight in chosen):
        some = ", ".join(map(repr, trainable[:NAMES_SHOWN]))
        raise ValueError(f"{problem}. The {len(trainable)} trainable weights are {some}, ...")
