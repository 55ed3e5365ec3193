"""The rules of perturbations that scale, mask or shorten the gradient, as plain formulas."""

import hashlib
import math

import torch

from tests import reference
from tests.perturbations.formulas import Rule


EPS = 1e-12


def to_radius(direction, norm, rho):
    return {name: rho * value / (norm + EPS) for name, value in direction.items()}


class Gradient(Rule):
    def __init__(self, names=None):
        self.names = names

    def displacement(self, now, a):
        a = {name: a[name] for name in self.names or a}
        return to_radius(a, reference.norm(a), now.rho)


class Adaptive(Rule):
    """ASAM and SAMSON."""

    def __init__(self, eta=0.01, scaled=("inner.weight", "norm.weight", "outer.weight"), ranged=False, names=None):
        self.eta, self.scaled, self.ranged, self.names = eta, scaled, ranged, names

    def scale(self, name, w):
        if name not in self.scaled:
            return torch.ones_like(w)
        return (w.abs() / w.abs().max() if self.ranged else w.abs()) + self.eta

    def displacement(self, now, a):
        t = {name: self.scale(name, now.w[name]) for name in self.names or a}
        norm = reference.norm({name: t[name] * a[name] for name in t})
        return to_radius({name: t[name] ** 2 * a[name] for name in t}, norm, now.rho)


class LossBudget(Rule):
    def __init__(self, budget, anneal):
        self.budget, self.anneal = budget, anneal

    def displacement(self, now, a):
        last = round(self.anneal * now.updates)
        place = now.update - (now.updates - last)
        share = 1.0 if place < 0 else (1 + math.cos(math.pi * place / (last - 1))) / 2
        norm = reference.norm(a)
        return to_radius(a, norm, min(self.budget * share / (float(norm) + EPS), now.rho))


class Preconditioned(Rule):
    def __init__(self, exponent):
        self.exponent = exponent

    def displacement(self, now, a):
        adam = now.adam
        if adam.t == 0:
            return to_radius(a, reference.norm(a), now.rho)
        beta, direction = adam.betas[1], {}
        for name, gradient in a.items():
            v = (beta * adam.state[1][name] + (1 - beta) * gradient**2) / (1 - beta ** (adam.t + 1))
            direction[name] = gradient / (torch.sqrt(v) + adam.eps) ** self.exponent
        return to_radius(direction, reference.norm(direction), now.rho)


class ZSharp(Rule):
    def __init__(self, quantile, each=False):
        self.quantile, self.each = quantile, each

    def displacement(self, now, a):
        kept = {}
        for name, gradient in a.items():
            if gradient.dim() > 1:
                z = ((gradient - gradient.mean()) / (gradient.std() + EPS)).abs()
                gradient = gradient * (z > torch.quantile(z, self.quantile))
            kept[name] = gradient
        if not self.each:
            return to_radius(kept, reference.norm(kept), now.rho)
        norms = {name: reference.norm({name: kept[name]} if value.dim() > 1 else a) for name, value in a.items()}
        return {name: now.rho * kept[name] / (norms[name] + EPS) for name in kept}


def largest(scores, count):
    """name -> 1 for the `count` largest of all scores, by sorting."""
    flat = torch.cat([value.reshape(-1) for value in scores.values()])
    mask = torch.zeros_like(flat)
    mask[torch.sort(flat, descending=True, stable=True).indices[:count]] = 1
    parts = mask.split([value.numel() for value in scores.values()])
    return {name: part.view_as(scores[name]) for name, part in zip(scores, parts, strict=True)}


class Masked(Rule):
    def __init__(self, interval, whole_norm=False):
        self.interval, self.whole_norm, self.mask, self.made = interval, whole_norm, None, None

    def advance(self, now):
        if self.made is None or now.update - self.made >= self.interval:
            self.mask, self.made = self.make(now), now.update

    def displacement(self, now, a):
        kept = {name: value * self.mask.get(name, 1.0) for name, value in a.items()}
        return to_radius(kept, reference.norm(a if self.whole_norm else kept), now.rho)


class Fisher(Masked):
    def __init__(self, keep, unmasked=(), **options):
        super().__init__(**options)
        self.keep, self.unmasked = keep, unmasked

    def make(self, now):
        f = {name: value**2 for name, value in now.a.items() if name not in self.unmasked}
        return largest(f, round(self.keep * sum(value.numel() for value in f.values())))


class SparseFisher(Masked):
    def __init__(self, sparsity, rows, **options):
        super().__init__(**options)
        self.sparsity, self.rows = sparsity, rows

    def make(self, now):
        f = {name: torch.zeros_like(value) for name, value in now.a.items()}
        # A pair of ranks looks at one window.
        share = math.ceil(self.rows / now.ranks) * (now.ranks // len(now.windows))
        for micro_batches in now.windows:
            rows = [(x[i : i + 1], y[i : i + 1]) for x, y in micro_batches for i in range(len(x))]
            for row in rows[:share]:
                f = {name: f[name] + g**2 for name, g in reference.batch_gradient(now.w, row, 1).items()}
        return largest(f, round((1 - self.sparsity) * sum(value.numel() for value in f.values())))


class SparseDynamic(Masked):
    def __init__(self, sparsity, drop, seed, **options):
        super().__init__(**options)
        self.sparsity, self.drop, self.seed = sparsity, drop, seed

    def random(self, now):
        def draw(name):
            digest = hashlib.sha256(f"{self.seed}/{now.update}/{name}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
            return torch.rand(now.a[name].numel(), generator=generator).view_as(now.a[name])

        return {name: draw(name) for name in now.a}

    def make(self, now):
        total = sum(value.numel() for value in now.a.values())
        kept = round((1 - self.sparsity) * total)
        if self.mask is None:
            return largest(self.random(now), kept)
        rate = self.drop * (1 + math.cos(math.pi * now.update / now.updates)) / 2
        exchanged = min(round(kept * rate), total - kept)
        # What must not be taken comes last in the order.
        stays = {name: now.a[name].abs().masked_fill(self.mask[name] == 0, -1.0) for name in now.a}
        comes = {name: value.masked_fill(self.mask[name] == 1, -1.0) for name, value in self.random(now).items()}
        stays, comes = largest(stays, kept - exchanged), largest(comes, exchanged)
        return {name: stays[name] + comes[name] for name in stays}
