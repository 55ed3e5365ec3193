"""Lookahead weights: in go the optimizer and a gradient, and the weights move to where the optimizer would take them.

The state of the optimizer is read, never written; the caller restores the weights.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.optim import Adam, AdamW, Optimizer
from torch.optim.adam import adam
from torch.optim.adamw import adamw


# Copies of the two moments are needed only while a chunk of this many elements is worked on. On a CPU it fits into
# the cache; an accelerator would rather launch few kernels.
CHUNK_ELEMENTS = {"cpu": 2**20}
CHUNK_ELEMENTS_ELSEWHERE = 2**24


def can_trial(optimizer_class: type[Optimizer]) -> bool:
    """Whether `trial_step` knows how `optimizer_class` steps. Subclasses may step otherwise, so they do not count."""
    return optimizer_class in (Adam, AdamW)


@torch.no_grad()
def trial_step(optimizer: Optimizer, gradients: dict[Tensor, Tensor]) -> None:
    """
    Move each weight in `gradients` to where one step of `optimizer` with that gradient would take it: momentum, second
    moment, weight decay and learning rate included, as in the trial step of the SGD script by the authors of SAMPa.
    The arithmetic is that of `torch.optim`, run on copies of the state.

    Args:
        optimizer (`torch.optim.Optimizer`): a plain `AdamW` or `Adam`, with or without fused, foreach, amsgrad.
        gradients (`dict[Tensor, Tensor]`): weight -> gradient of the same shape. Other weights stay where they are.

    Raises:
        `TypeError`: `optimizer` is of another class.
    """
    if not can_trial(type(optimizer)):
        raise TypeError(f"trial_step knows AdamW and Adam, not {type(optimizer).__name__}.")
    for group in optimizer.param_groups:
        pieces = (
            piece
            for weight in group["params"]
            if weight in gradients
            for piece in _pieces(weight, gradients[weight], _state(optimizer, group, weight))
        )
        for chunk in _chunks(pieces):
            weights, piece_gradients, states = zip(*chunk, strict=True)
            state = _copies(states)
            beta1, beta2 = group["betas"]
            step = adamw if _decays_apart(optimizer, group) else adam
            step(
                list(weights),
                list(piece_gradients),
                [entry["exp_avg"] for entry in state],
                [entry["exp_avg_sq"] for entry in state],
                [entry["max_exp_avg_sq"] for entry in state if group["amsgrad"]],
                [entry["step"] for entry in state],
                foreach=group["foreach"],
                capturable=group["capturable"],
                differentiable=False,
                fused=group["fused"],
                has_complex=any(torch.is_complex(weight) for weight in weights),
                amsgrad=group["amsgrad"],
                beta1=beta1,
                beta2=beta2,
                lr=group["lr"],
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                maximize=group["maximize"],
            )


@torch.no_grad()
def gradient_step(optimizer: Optimizer, gradients: dict[Tensor, Tensor]) -> None:
    """Move each weight to `w - η h`, the lookahead as printed in Xie et al. 2024, Algorithm 1, line 3."""
    for group in optimizer.param_groups:
        weights = [weight for weight in group["params"] if weight in gradients]
        if weights:
            torch._foreach_add_(weights, [gradients[weight] for weight in weights], alpha=-float(group["lr"]))


def _decays_apart(optimizer: Optimizer, group: dict) -> bool:
    return isinstance(optimizer, AdamW) or group.get("decoupled_weight_decay", False)


def _state(optimizer: Optimizer, group: dict, weight: Tensor) -> dict[str, Tensor]:
    """The optimizer's tensors for `weight`; those of a weight that it has not stepped yet are zeros."""
    state = optimizer.state.get(weight)
    if state:
        return {name: value for name, value in state.items() if torch.is_tensor(value)}
    on_device = group["fused"] or group["capturable"]
    zeros = torch.zeros_like(weight)
    return {
        "step": torch.zeros((), dtype=torch.float32, device=weight.device if on_device else None),
        "exp_avg": zeros,
        "exp_avg_sq": zeros,
        "max_exp_avg_sq": zeros,
    }


def _copies(states: Sequence[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    copies = [{name: torch.empty_like(value) for name, value in entry.items()} for entry in states]
    sources = [value for entry in states for value in entry.values()]
    torch._foreach_copy_([value for entry in copies for value in entry.values()], sources)
    return copies


Piece = tuple[Tensor, Tensor, dict[str, Tensor]]


def _chunk_elements(weight: Tensor) -> int:
    return CHUNK_ELEMENTS.get(weight.device.type, CHUNK_ELEMENTS_ELSEWHERE)


def _pieces(weight: Tensor, gradient: Tensor, state: dict[str, Tensor]) -> Iterator[Piece]:
    """Views of a weight, its gradient and its state that are small enough for a chunk. The step count has no shape."""
    whole = [weight, gradient, *(value for value in state.values() if value.dim())]
    elements = _chunk_elements(weight)
    if weight.numel() <= elements or not all(tensor.is_contiguous() for tensor in whole):
        yield weight, gradient, state
        return
    moments = {name: value.view(-1).split(elements) for name, value in state.items() if value.dim()}
    parts = zip(weight.view(-1).split(elements), gradient.view(-1).split(elements), strict=True)
    for position, (weights, gradients) in enumerate(parts):
        yield weights, gradients, state | {name: split[position] for name, split in moments.items()}


def _chunks(pieces: Iterator[Piece]) -> Iterator[list[Piece]]:
    chunk: list[Piece] = []
    elements = 0
    for piece in pieces:
        chunk.append(piece)
        elements += piece[0].numel()
        if elements >= _chunk_elements(piece[0]):
            yield chunk
            chunk, elements = [], 0
    if chunk:
        yield chunk
