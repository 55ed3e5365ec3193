"""The trial step ends where the optimizer's own step ends, and leaves the optimizer as it was."""

import pytest
import torch

from hf_sam import lookahead


def make_optimizer(dtype, options, kind):
    generator = torch.Generator().manual_seed(1)
    shapes = [(40, 30), (30,), (7, 5, 3), ()]
    weights = [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]
    weights = [torch.nn.Parameter(weight) for weight in weights]
    # A weight in another memory layout cannot be viewed as flat pieces.
    weights.append(torch.nn.Parameter(torch.randn(6, 400, generator=generator, dtype=torch.float64).to(dtype).t()))
    groups = [{"params": weights[:2], "weight_decay": 0.1}, {"params": weights[2:], "weight_decay": 0.0, "lr": 0.03}]
    return weights, kind(groups, lr=0.01, **options), generator


@pytest.mark.parametrize("pieces", [64, 2**20])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.Adam])
@pytest.mark.parametrize(
    "options", [{}, {"fused": True}, {"foreach": True}, {"amsgrad": True}, {"maximize": True}], ids=str
)
def test_goes_where_the_optimizer_goes_and_leaves_its_state(options, kind, dtype, pieces, monkeypatch):
    monkeypatch.setitem(lookahead.CHUNK_ELEMENTS, "cpu", pieces)
    weights, optimizer, generator = make_optimizer(dtype, options, kind)
    for update in range(3):
        gradients = {
            weight: torch.randn(weight.shape, generator=generator, dtype=torch.float64).to(dtype) for weight in weights
        }
        before = [weight.detach().clone() for weight in weights]
        state = {id(w): {k: v.clone() for k, v in optimizer.state[w].items()} for w in weights if optimizer.state[w]}
        lookahead.trial_step(optimizer, gradients)
        trial = [weight.detach().clone() for weight in weights]
        for weight in weights:
            assert bool(optimizer.state[weight]) is (update > 0)
            for name, value in state.get(id(weight), {}).items():
                assert torch.equal(optimizer.state[weight][name], value), name
        with torch.no_grad():
            for weight, value in zip(weights, before, strict=True):
                weight.copy_(value)
                weight.grad = gradients[weight]
        optimizer.step()
        tolerance = 1e-14 if dtype == torch.float64 else 1e-6
        for weight, value, old in zip(weights, trial, before, strict=True):
            torch.testing.assert_close(value, weight.detach(), rtol=tolerance, atol=tolerance)
            assert not torch.equal(value, old)


def test_subclasses_are_not_taken_for_what_they_extend():
    class Other(torch.optim.AdamW):
        pass

    assert not lookahead.can_trial(Other)
    with pytest.raises(TypeError, match="Other"):
        lookahead.trial_step(Other([torch.nn.Parameter(torch.ones(2))]), {})
