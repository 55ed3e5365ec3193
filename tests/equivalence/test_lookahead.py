"""The trial step ends where the optimizer's own step ends, and leaves the optimizer as it was."""

import pytest
import torch

from hf_sam import lookahead
from hf_sam.weights import preserved_weights
from tests.optimizers import bits, normal


def make_optimizer(dtype, options, kind):
    generator = torch.Generator().manual_seed(1)
    shapes = [(40, 30), (30,), (7, 5, 3), ()]
    weights = [torch.nn.Parameter(normal(shape, dtype, generator)) for shape in shapes]
    # A weight in another memory layout cannot be viewed as flat pieces.
    weights.append(torch.nn.Parameter(normal((6, 400), dtype, generator).t()))
    groups = [{"params": weights[:2], "weight_decay": 0.1}, {"params": weights[2:], "weight_decay": 0.0, "lr": 0.03}]
    return weights, kind(groups, lr=0.01, **options), generator


COMMON = [{}, {"fused": True}, {"foreach": True}, {"maximize": True}]
MOMENTUM = [
    {"momentum": 0.9},
    {"momentum": 0.9, "dampening": 0.3, "maximize": True},
    {"momentum": 0.9, "nesterov": True, "foreach": True},
    {"momentum": 0.9, "nesterov": True, "fused": True},
]
CASES = [(kind, options) for kind in (torch.optim.AdamW, torch.optim.Adam) for options in [*COMMON, {"amsgrad": True}]]
CASES += [(torch.optim.SGD, options) for options in COMMON + MOMENTUM]


@pytest.mark.parametrize("pieces", [64, 2**20])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("kind", "options"), CASES, ids=lambda value: getattr(value, "__name__", str(value)))
def test_goes_where_the_optimizer_goes_and_leaves_its_state(kind, options, dtype, pieces, monkeypatch):
    monkeypatch.setitem(lookahead.CHUNK_ELEMENTS, "cpu", pieces)
    weights, optimizer, generator = make_optimizer(dtype, options, kind)
    for _ in range(3):
        gradients = {weight: normal(weight.shape, dtype, generator) for weight in weights}
        before = bits([weights, optimizer])
        with preserved_weights(weights):
            lookahead.trial_step(optimizer, {weight: gradient.clone() for weight, gradient in gradients.items()})
            trial = bits([weight.detach() for weight in weights])
        assert bits([weights, optimizer]) == before
        for weight in weights:
            weight.grad = gradients[weight]
        optimizer.step()
        assert bits([weight.detach() for weight in weights]) == trial
        assert bits(weights) != before[0]


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD])
def test_subclasses_are_not_taken_for_what_they_extend(kind):
    class TwiceAsFar(kind):
        def step(self, closure=None):
            super().step()
            super().step()

    weights = [torch.nn.Parameter(torch.ones(2)) for _ in range(2)]
    twice, twin = TwiceAsFar(weights[:1], lr=0.1), kind(weights[1:], lr=0.1)
    lookahead.trial_step(twice, {weights[0]: torch.ones(2)})
    weights[1].grad = torch.ones(2)
    twin.step()
    assert not torch.equal(weights[0], weights[1])
    twin.step()
    assert torch.equal(weights[0], weights[1])
