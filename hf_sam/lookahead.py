"""Lookahead weights: in go the optimizer and a gradient, and the weights move to where the optimizer would take them.

The optimizer is left as it was, with the bits of its state; the caller restores the weights.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.adam import adam
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd

from .optimizer_state import preserved_optimizer
from .rng import preserved_rng
from .weights import preserved_weights


# Copies of the state are needed only while a chunk of this many elements is worked on. On a CPU it fits into
# the cache; an accelerator would rather launch few kernels.
CHUNK_ELEMENTS = {"cpu": 2**20}
CHUNK_ELEMENTS_ELSEWHERE = 2**24


@torch.no_grad()
def trial_step(optimizer: Optimizer, gradients: dict[Tensor, Tensor]) -> None:
    """
    Move each weight in `gradients` to where one step of `optimizer` with that gradient would take it: momentum, second
    moment, weight decay and learning rate included, as in the trial step of the SGD script by the authors of SAMPa.

    For a plain `AdamW`, `Adam` or `SGD` the arithmetic of `torch.optim` runs on copies of the state, chunk by chunk.
    Any other optimizer is stepped itself and put back; while it steps, there is a copy of all its state.

    The step is the one of the optimizer's class: nothing that counts steps (hooks, `optimizer.step` as a scheduler
    wraps it) takes notice. The streams of random numbers stay where they were.

    Args:
        optimizer (`torch.optim.Optimizer`): any whose `step()` needs no closure and steps from `.grad`.
        gradients (`dict[Tensor, Tensor]`): weight -> gradient of the same shape. Other weights stay where they are.
            The optimizer may write over the gradients, as some do; those that are in `.grad` come back.
    """
    chunked = CHUNKED_STEPS.get(type(optimizer))
    if chunked is None:
        _step_and_put_back(optimizer, gradients)
        return
    state_of, step_chunk = chunked
    for group in optimizer.param_groups:
        pieces = (
            piece
            for weight in group["params"]
            if weight in gradients
            for piece in _pieces(weight, gradients[weight], state_of(optimizer, group, weight))
        )
        for chunk in _chunks(pieces):
            weights, piece_gradients, states = zip(*chunk, strict=True)
            step_chunk(optimizer, group, list(weights), list(piece_gradients), _copies(states))


@torch.no_grad()
def gradient_step(optimizer: Optimizer, gradients: dict[Tensor, Tensor]) -> None:
    """Move each weight to `w - η h`, the lookahead as printed in Xie et al. 2024, Algorithm 1, line 3."""
    for group in optimizer.param_groups:
        weights = [weight for weight in group["params"] if weight in gradients]
        if weights:
            torch._foreach_add_(weights, [gradients[weight] for weight in weights], alpha=-float(group["lr"]))


# ---- any optimizer ----


def _step_and_put_back(optimizer: Optimizer, gradients: dict[Tensor, Tensor]) -> None:
    in_groups = [weight for group in optimizer.param_groups for weight in group["params"]]
    # Some optimizers take a missing gradient for zeros, and decay the weight.
    others = [weight for weight in in_groups if weight not in gradients and weight.requires_grad]
    before = {weight: weight.grad for weight in [*in_groups, *gradients]}
    device = next(iter(before)).device
    with preserved_rng(device), preserved_weights(others), preserved_optimizer(optimizer, before):
        try:
            for weight in before:
                weight.grad = gradients.get(weight)
            _bare_step(type(optimizer))(optimizer)
        finally:
            for weight, gradient in before.items():
                weight.grad = gradient


def _bare_step(optimizer_class: type[Optimizer]) -> Callable:
    """The class's `step` without the wrapper of torch, under which a profiler would see a step of training."""
    step = optimizer_class.step
    wrapper = Optimizer.profile_hook_step(step)
    return step.__wrapped__ if getattr(step, "__code__", None) is wrapper.__code__ else step


# ---- optimizers whose arithmetic torch has as a function ----

State = dict[str, Tensor]
Piece = tuple[Tensor, Tensor, State]


def _adam_state(optimizer: Optimizer, group: dict, weight: Tensor) -> State:
    """The optimizer's tensors for `weight`; those of a weight that it has not stepped yet are zeros."""
    state = _tensors(optimizer, weight)
    if state:
        return state
    on_device = group["fused"] or group["capturable"]
    zeros = torch.zeros_like(weight)
    return {
        "step": torch.zeros((), dtype=torch.float32, device=weight.device if on_device else None),
        "exp_avg": zeros,
        "exp_avg_sq": zeros,
        "max_exp_avg_sq": zeros,
    }


def _adam_chunk(
    optimizer: Optimizer, group: dict, weights: list[Tensor], gradients: list[Tensor], states: list[State]
) -> None:
    decays_apart = isinstance(optimizer, AdamW) or group.get("decoupled_weight_decay", False)
    beta1, beta2 = group["betas"]
    step = adamw if decays_apart else adam
    step(
        weights,
        gradients,
        [state["exp_avg"] for state in states],
        [state["exp_avg_sq"] for state in states],
        [state["max_exp_avg_sq"] for state in states if group["amsgrad"]],
        [state["step"] for state in states],
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


def _sgd_state(optimizer: Optimizer, group: dict, weight: Tensor) -> State:
    """Empty before the first step, whose momentum buffer is the gradient."""
    return _tensors(optimizer, weight) if group["momentum"] != 0 else {}


def _sgd_chunk(
    optimizer: Optimizer, group: dict, weights: list[Tensor], gradients: list[Tensor], states: list[State]
) -> None:
    sgd(
        weights,
        gradients,
        [state.get("momentum_buffer") for state in states],
        has_sparse_grad=False,
        foreach=group["foreach"],
        fused=group["fused"],
        weight_decay=group["weight_decay"],
        momentum=group["momentum"],
        lr=group["lr"],
        dampening=group["dampening"],
        nesterov=group["nesterov"],
        maximize=group["maximize"],
    )


# Of exactly these classes: a subclass may step otherwise.
CHUNKED_STEPS = {AdamW: (_adam_state, _adam_chunk), Adam: (_adam_state, _adam_chunk), SGD: (_sgd_state, _sgd_chunk)}


def _tensors(optimizer: Optimizer, weight: Tensor) -> State:
    return {name: value for name, value in optimizer.state.get(weight, {}).items() if torch.is_tensor(value)}


def _copies(states: Sequence[State]) -> list[State]:
    copies = [{name: torch.empty_like(value) for name, value in entry.items()} for entry in states]
    sources = [value for entry in states for value in entry.values()]
    if sources:
        torch._foreach_copy_([value for entry in copies for value in entry.values()], sources)
    return copies


def _chunk_elements(weight: Tensor) -> int:
    return CHUNK_ELEMENTS.get(weight.device.type, CHUNK_ELEMENTS_ELSEWHERE)


def _pieces(weight: Tensor, gradient: Tensor, state: State) -> Iterator[Piece]:
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
