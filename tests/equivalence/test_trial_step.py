"""A trial step goes where a real step goes, bit for bit, and leaves the optimizer and the weights without a trace."""

import pytest
import torch
from torch.optim.optimizer import (
    _global_optimizer_pre_hooks,
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from benchmarks.live_bytes import LiveBytes
from hf_sam.lookahead import trial_step
from hf_sam.weights import preserved_weights
from tests.optimizers import OPTIMIZERS, bits, make, normal


def take_step(optimizer, weights, gradients):
    for weight, gradient in zip(weights, gradients, strict=True):
        weight.grad = gradient.clone()
    optimizer.step()


def take_trial_step(optimizer, weights, gradients):
    """Where it leads. The weights are put back."""
    with preserved_weights(weights):
        trial_step(optimizer, {w: g.clone() for w, g in zip(weights, gradients, strict=True)})
        return [weight.detach().clone() for weight in weights]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_it_goes_where_a_real_step_goes_and_leaves_no_trace(name, dtype):
    """From a fresh optimizer too. `twin` never takes a trial step."""
    (weights, optimizer), (twin_weights, twin) = make(name, dtype), make(name, dtype)
    generator = torch.Generator().manual_seed(4)
    moves = []
    for update in range(7):
        gradients = [normal(weight.shape, dtype, generator) for weight in weights]
        others = [torch.full_like(weight, 7.0) for weight in weights]
        for weight, other in zip(weights, others, strict=True):
            weight.grad = other
        torch.manual_seed(update)
        before, stream = bits([weights, optimizer, optimizer.state_dict(), others]), torch.get_rng_state()
        objects = [optimizer.state, *optimizer.state.values(), *optimizer.param_groups]

        moved = take_trial_step(optimizer, weights, gradients)

        assert bits([weights, optimizer, optimizer.state_dict(), others]) == before
        assert all(weight.grad is other for weight, other in zip(weights, others, strict=True))
        assert torch.equal(torch.get_rng_state(), stream)
        after = [optimizer.state, *optimizer.state.values(), *optimizer.param_groups]
        assert all(ours is theirs for ours, theirs in zip(after, objects, strict=True))

        take_step(twin, twin_weights, gradients)
        assert bits(moved) == bits([weight.detach() for weight in twin_weights])
        moves.append(bits(moved) != bits([weight.detach() for weight in weights]))
        torch.manual_seed(update)
        take_step(optimizer, weights, gradients)
        assert bits([weights, optimizer.state_dict()]) == bits([twin_weights, twin.state_dict()])
    # Some begin with updates that move nothing.
    assert moves[-1]


def test_another_gradient_leads_elsewhere():
    weights, optimizer = make("RAdam", torch.float64)
    ones = [torch.ones_like(weight) for weight in weights]
    twos = [2 * one for one in ones]
    for _ in range(6):
        take_step(optimizer, weights, ones)
    assert bits(take_trial_step(optimizer, weights, ones)) != bits(take_trial_step(optimizer, weights, twos))


@pytest.mark.parametrize("name", ["SGD with momentum", "RAdam", "Muon beside AdamW", "everything"])
def test_what_counts_steps_takes_no_notice(name):
    weights, optimizer = make(name, torch.float64)
    gradients = [torch.ones_like(weight) for weight in weights]
    noticed = []

    def is_in(profile):
        return f"Optimizer.step#{type(optimizer).__name__}.step" in {event.key for event in profile.key_averages()}

    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda update: 0.5)
    wrapped = optimizer.step
    optimizer.step = lambda *arguments: (noticed.append("step"), wrapped(*arguments))
    handles = [
        optimizer.register_step_pre_hook(lambda *_: noticed.append("before")),
        optimizer.register_step_post_hook(lambda *_: noticed.append("after")),
        register_optimizer_step_pre_hook(lambda *_: noticed.append("before any")),
        register_optimizer_step_post_hook(lambda *_: noticed.append("after any")),
    ]
    try:
        with torch.profiler.profile() as profile:
            take_trial_step(optimizer, weights, gradients)
        assert noticed == []
        assert not getattr(optimizer, "_opt_called", False)
        assert not [
            e.key for e in profile.key_averages() if e.key == f"Optimizer.step#{type(optimizer).__name__}.step"
        ]
        with torch.profiler.profile() as profile:
            take_step(optimizer, weights, gradients)
        inner = 3 if name == "Muon beside AdamW" else 1
        assert {hook: noticed.count(hook) for hook in noticed} == {
            "step": 1,
            "before": 1,
            "after": 1,
            "before any": inner,
            "after any": inner,
        }
        assert optimizer._opt_called
        assert is_in(profile)
    finally:
        for handle in handles:
            handle.remove()


def test_a_weight_without_a_gradient_stays_where_it_is():
    """Also under an optimizer that would have moved it."""
    weights, optimizer = make("everything", torch.float64)
    before = [weight.detach().clone() for weight in weights]
    trial_step(optimizer, {weights[0]: torch.ones_like(weights[0])})
    assert not torch.equal(weights[0], before[0])
    assert bits([weight.detach() for weight in weights[1:]]) == bits(before[1:])
    assert all(weight.grad is None for weight in weights)


class Failing(torch.optim.RAdam):
    def step(self, closure=None):
        super().step()
        self.param_groups[0]["lr"] = 3.0
        raise RuntimeError("no further")


def test_after_an_exception_everything_is_back():
    weight = torch.nn.Parameter(torch.ones(5))
    optimizer = Failing([weight], lr=0.1)
    optimizer.register_step_pre_hook(lambda *_: None)
    handle = register_optimizer_step_pre_hook(lambda *_: None)
    try:
        before, registered = bits(optimizer), len(_global_optimizer_pre_hooks)
        with pytest.raises(RuntimeError, match="no further"), preserved_weights([weight]):
            trial_step(optimizer, {weight: torch.ones(5)})
        assert bits(optimizer) == before
        assert len(_global_optimizer_pre_hooks) == registered
        assert weight.grad is None
        assert torch.equal(weight, torch.ones(5))
    finally:
        handle.remove()


def test_an_object_that_is_not_the_optimizers_own_is_left_alone():
    """Else a reference to the trainer would copy the data set."""

    class Elsewhere:
        __module__ = "elsewhere.things"

    weights, optimizer = make("RAdam", torch.float32)
    optimizer.elsewhere = Elsewhere()
    optimizer.elsewhere.data = torch.zeros(10**6)
    assert bytes_of_a_trial_step(optimizer, weights)[0] < optimizer.elsewhere.data.nbytes


def bytes_of_a_trial_step(optimizer, weights):
    """At most at once, and at the end. What is written to counts, such as the weights."""
    gradients = {weight: torch.ones_like(weight) for weight in weights}
    with LiveBytes() as counted:
        trial_step(optimizer, gradients)
    return counted.peak, counted.live


def test_a_copy_of_the_state_is_there_only_while_the_optimizer_steps():
    weights, optimizer = make("RMSprop", torch.float32)
    take_step(optimizer, weights, [torch.ones_like(weight) for weight in weights])
    state = sum(value.nbytes for entry in optimizer.state.values() for value in entry.values())
    with LiveBytes() as alone:
        optimizer.step()
    peak, left = bytes_of_a_trial_step(optimizer, weights)
    assert left == alone.live
    # The streams of random numbers are a few kilobytes.
    assert state <= peak - alone.peak < state + 10_000
