"""The two measures of sharpness against closed forms, and that measuring leaves no trace."""

import copy
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader
from transformers import BertConfig, BertForSequenceClassification

from hf_sam.diagnostics import hessian_top_eigenvalue, worst_case_sharpness


class Quadratic(nn.Module):
    """Mean over examples of ½ scale · wᵀHw, with the weights split over two parameters."""

    def __init__(self, hessian: torch.Tensor, weights: torch.Tensor):
        super().__init__()
        self.hessian = hessian
        self.head, self.tail = nn.Parameter(weights[:2].clone()), nn.Parameter(weights[2:].clone())
        self.unused = nn.Parameter(torch.ones(3, dtype=weights.dtype))

    def forward(self, scale):
        w = torch.cat([self.head, self.tail])
        return SimpleNamespace(loss=scale.mean() * 0.5 * w @ self.hessian @ w)


def symmetric(eigenvalues, dtype=torch.float64):
    basis, _ = torch.linalg.qr(torch.randn(len(eigenvalues), len(eigenvalues), dtype=torch.float64))
    return (basis @ torch.diag(torch.tensor(eigenvalues, dtype=torch.float64)) @ basis.T).to(dtype), basis.to(dtype)


def batches(dtype=torch.float64):
    # Scales 1, 2 and 6 in batches of unequal size: the mean over examples is 3, the mean over batches would be 3.75.
    return [{"scale": torch.tensor([1.0, 2.0], dtype=dtype)}, {"scale": torch.tensor([6.0], dtype=dtype)}]


def tiny_bert(dtype, attention="sdpa", dropout=0.1):
    config = BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
        max_position_embeddings=8, hidden_dropout_prob=dropout, attn_implementation=attention, num_labels=2,
    )  # fmt: skip
    torch.manual_seed(0)
    return BertForSequenceClassification(config).to(dtype)


def sentences(rows=6):
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(20, (rows, 5), generator=generator)
    mask = torch.ones_like(ids)
    mask[0, 3:] = 0
    return [{"input_ids": i, "attention_mask": m, "labels": i[0] % 2} for i, m in zip(ids, mask, strict=True)]


@pytest.mark.parametrize(("dtype", "precision"), [(torch.float64, 1e-6), (torch.float32, 1e-5)])
@pytest.mark.parametrize("largest", [4.0, -4.0])
def test_top_eigenvalue_of_a_quadratic(dtype, precision, largest):
    torch.manual_seed(0)
    hessian, _ = symmetric([largest, 2.5, 1.0, 0.5, -0.25], dtype)
    model = Quadratic(hessian, torch.randn(5, dtype=dtype))
    result = hessian_top_eigenvalue(model, batches(dtype), tolerance=1e-12, max_iterations=200)
    assert result.value == pytest.approx(3 * largest, rel=precision)
    if dtype == torch.float64:
        assert result.converged
        assert result.residual < 1e-4


def test_top_eigenvalue_stops_where_it_is_told_to():
    torch.manual_seed(0)
    model = Quadratic(symmetric([4.0, 3.9, 1.0, 0.5, 0.25])[0], torch.randn(5, dtype=torch.float64))
    short = hessian_top_eigenvalue(model, batches(), max_iterations=3, tolerance=0.0)
    assert (short.iterations, short.converged) == (3, False)
    # Some eigenvalue lies within the residual of the value.
    eigenvalues = torch.linalg.eigvalsh(3 * model.hessian)
    assert (eigenvalues - short.value).abs().min() <= short.residual
    loose = hessian_top_eigenvalue(model, batches(), max_iterations=100, tolerance=0.05)
    assert loose.converged
    assert loose.iterations < 20


def test_top_eigenvalue_of_a_linear_loss_is_zero():
    model = nn.Linear(3, 1).double()
    sample = [torch.ones(4, 3, dtype=torch.float64)]
    result = hessian_top_eigenvalue(model, sample, loss_fn=lambda m, b: m(b).mean())
    assert (result.value, result.residual, result.converged, result.iterations) == (0.0, 0.0, True, 1)


def test_worst_loss_of_a_quadratic_at_its_minimum():
    torch.manual_seed(0)
    model = Quadratic(symmetric([4.0, 2.0, 1.0, 0.5, 0.25])[0], torch.zeros(5, dtype=torch.float64))
    result = worst_case_sharpness(model, batches(), rho=0.3, steps=60)
    assert result.loss == 0
    assert result.worst_loss == pytest.approx(0.5 * 0.3**2 * 12, rel=1e-9)
    assert result.sharpness == result.worst_loss - result.loss


def test_worst_loss_of_a_quadratic_away_from_its_minimum():
    torch.manual_seed(0)
    hessian, basis = symmetric([4.0, 2.0, 1.0, 0.5, 0.25])
    model = Quadratic(hessian, basis[:, 0] * 2 + basis[:, 2])
    w, rho = torch.cat([model.head, model.tail]).detach(), 0.4
    # max over ‖v‖ = rho of ½ (w+v)ᵀ3H(w+v): (μ - 3H) v = 3H w with the μ > λ_max at which ‖v‖ = rho, by bisection.
    solve = lambda mu: torch.linalg.solve(mu * torch.eye(5).double() - 3 * hessian, 3 * hessian @ w)  # noqa: E731
    low, high = 12.0, 1e3
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if solve(middle).norm() > rho else (low, middle)
    best = w + solve(high)
    result = worst_case_sharpness(model, batches(), rho=rho, steps=60)
    assert result.loss == pytest.approx((1.5 * w @ hessian @ w).item(), rel=1e-12)
    assert result.worst_loss == pytest.approx((1.5 * best @ hessian @ best).item(), rel=1e-9)


def test_one_step_is_the_perturbation_of_sam_and_more_steps_never_find_less():
    model = tiny_bert(torch.float64)
    sample = list(DataLoader(sentences(), batch_size=4))
    twin = copy.deepcopy(model).eval()
    whole = next(iter(DataLoader(sentences(), batch_size=6)))
    twin(**whole).loss.backward()
    norm = torch.cat([p.grad.flatten() for p in twin.parameters()]).norm()
    with torch.no_grad():
        for p in twin.parameters():
            p += 0.2 * p.grad / norm
        expected = twin(**whole).loss.item()
    values = [worst_case_sharpness(model, sample, rho=0.2, steps=steps).worst_loss for steps in (1, 3, 10)]
    assert values[0] == pytest.approx(expected, rel=1e-10)
    assert values[0] < values[1] <= values[2]


def test_ascent_stays_in_the_ball_over_trainable_parameters_only():
    model = tiny_bert(torch.float64)
    model.bert.embeddings.requires_grad_(False)
    start = {n: p.detach().clone() for n, p in model.named_parameters()}
    distances = []

    def loss_fn(model, batch):
        moved = {n: (p.detach() - start[n]).norm().item() for n, p in model.named_parameters()}
        assert all(moved[n] == 0 for n, p in model.named_parameters() if not p.requires_grad)
        distances.append(np.linalg.norm(list(moved.values())))
        return model(**batch).loss

    worst_case_sharpness(model, DataLoader(sentences(), batch_size=6), rho=0.1, steps=5, loss_fn=loss_fn)
    assert distances == pytest.approx([0] + [0.1] * 5, rel=1e-9)
    distances.clear()
    worst_case_sharpness(
        model, DataLoader(sentences(), batch_size=6), rho=0.1, steps=2, step_size=0.04, loss_fn=loss_fn
    )
    assert distances[1] == pytest.approx(0.04, rel=1e-9)
    assert 0.04 < distances[2] <= 0.08 + 1e-12


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_top_eigenvalue_of_a_transformer(attention):
    model = tiny_bert(torch.float64, attention)
    whole = next(iter(DataLoader(sentences(), batch_size=6)))
    reference = tiny_bert(torch.float64, "eager").eval()
    names = [n for n, _ in reference.named_parameters()]
    shapes = [p.shape for p in reference.parameters()]
    flat = torch.cat([p.detach().flatten() for p in reference.parameters()])

    def loss(weights):
        parts = weights.split([s.numel() for s in shapes])
        values = {n: part.view(s) for n, part, s in zip(names, parts, shapes, strict=True)}
        return torch.func.functional_call(reference, values, (), whole).loss

    eigenvalues = torch.linalg.eigvalsh(torch.autograd.functional.hessian(loss, flat))
    expected = eigenvalues[eigenvalues.abs().argmax()].item()
    sample = DataLoader(sentences(), batch_size=4)
    result = hessian_top_eigenvalue(model, sample, tolerance=1e-10, max_iterations=500)
    assert result.value == pytest.approx(expected, rel=1e-6)
    single = hessian_top_eigenvalue(copy.deepcopy(model).float(), sample, tolerance=1e-6, max_iterations=500)
    assert single.value == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("measure", [worst_case_sharpness, hessian_top_eigenvalue])
def test_measuring_leaves_no_trace(measure, dtype):
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1)).to(dtype).train()
    model[1].eval()
    model[0].weight.grad = torch.full_like(model[0].weight, 7.0)
    data = [{"x": torch.randn(4, dtype=dtype), "y": torch.randn(1, dtype=dtype)} for _ in range(10)]
    loader = DataLoader(data, batch_size=4, shuffle=True)
    before = copy.deepcopy(model)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()

    def loss_fn(model, batch):
        assert not any(m.training for m in model.modules())
        torch.rand(1), random.random(), np.random.rand()
        return (model(batch["x"]) - batch["y"]).square().mean()

    with torch.no_grad():
        measure(model, loader, loss_fn=loss_fn)

    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert all(np.array_equal(a, b) for a, b in zip(np.random.get_state(), states[2], strict=True))
    assert [m.training for m in model.modules()] == [m.training for m in before.modules()]
    for new, old in zip(model.state_dict().values(), before.state_dict().values(), strict=True):
        assert torch.equal(new, old)
    assert torch.equal(model[0].weight.grad, torch.full_like(model[0].weight, 7.0))
    assert all(p.grad is None for n, p in model.named_parameters() if n != "0.weight")
    sample = list(loader)
    assert measure(model, sample, loss_fn=loss_fn) == measure(before.eval(), sample, loss_fn=loss_fn)


def test_weights_come_back_when_the_loss_function_raises():
    model = nn.Linear(4, 1)
    before, calls = copy.deepcopy(model), []

    def loss_fn(model, batch):
        calls.append(model.weight.detach().clone())
        if len(calls) == 2:
            raise KeyError("labels")
        return model(batch).square().mean()

    with pytest.raises(KeyError):
        worst_case_sharpness(model, [torch.randn(3, 4)], loss_fn=loss_fn)
    assert not torch.equal(calls[1], before.weight)
    assert torch.equal(model.weight, before.weight)
    assert torch.equal(model.bias, before.bias)
    assert model.training


def test_an_infinite_loss_in_the_ball_is_reported():
    model = nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(0.25)
    result = worst_case_sharpness(model, [torch.ones(1, 1)], rho=1.0, loss_fn=lambda m, b: -(1 - m(b)).log().sum())
    assert not np.isfinite(result.worst_loss)
    assert result.loss == pytest.approx(-np.log(0.75))
    assert model.weight.item() == 0.25


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rho": 0.0}, "rho must be a finite number above 0, got 0.0"),
        ({"rho": float("nan")}, "rho must be a finite number above 0, got nan"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"step_size": -1.0}, "step_size must be a finite number above 0, got -1.0"),
        ({"batches": []}, "batches must hold examples"),
        ({"batches": [{"scale": torch.ones(0)}]}, "batches must hold examples"),
    ],
)
def test_what_worst_case_sharpness_refuses(arguments, message):
    model = Quadratic(torch.eye(5), torch.ones(5))
    with pytest.raises(ValueError, match=message):
        worst_case_sharpness(**{"model": model, "batches": batches(torch.float32), **arguments})
    assert model.training


def test_what_hessian_top_eigenvalue_refuses():
    model = Quadratic(torch.eye(5), torch.ones(5))
    with pytest.raises(ValueError, match="max_iterations must be at least 1, got 0"):
        hessian_top_eigenvalue(model, batches(torch.float32), max_iterations=0)
    with pytest.raises(ValueError, match="tolerance must be a finite number of at least 0, got -1"):
        hessian_top_eigenvalue(model, batches(torch.float32), tolerance=-1)
    with pytest.raises(ValueError, match="no parameter with requires_grad=True"):
        hessian_top_eigenvalue(model.requires_grad_(False), batches(torch.float32))
    unlabelled = [{"input_ids": torch.ones(2, 3, dtype=torch.long)}]
    with pytest.raises(ValueError, match=r"no loss for a batch with the keys \['input_ids'\]"):
        hessian_top_eigenvalue(tiny_bert(torch.float32), unlabelled)


def test_a_kernel_without_second_derivative_is_named():
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.square()

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, grad):
            return 2 * ctx.saved_tensors[0] * grad

    with pytest.raises(ValueError, match="cannot be differentiated twice"):
        hessian_top_eigenvalue(nn.Linear(2, 1), [torch.ones(1, 2)], loss_fn=lambda m, b: Once.apply(m(b)).log().mean())

    def fused(model, batch):
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            return model(input_ids=batch["input_ids"], labels=batch["labels"]).loss

    with pytest.raises(ValueError, match="attn_implementation='eager'"):
        hessian_top_eigenvalue(tiny_bert(torch.float32), DataLoader(sentences(), batch_size=6), loss_fn=fused)
