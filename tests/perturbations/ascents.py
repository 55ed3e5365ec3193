"""Where the ascent direction is from, once more: plain float64 formulas on arrays, without hf_sam and without Trainer.

A rule makes the gradient that the optimizer is given from a window, as a list over ranks (or pairs) of micro-batches.
"""

import hashlib
import math
from dataclasses import dataclass

import torch

from tests import reference
from tests.reference import mean, norm, rank_gradient, window_gradient


RHO, SEED, EPS = 0.3, 42, 1e-12


@dataclass
class Now:
    """`window` and `upcoming` of update t of T, `shards` of data in `scope`."""

    w: dict
    window: list
    upcoming: list
    t: int
    updates: int
    adam: reference.Adam
    scope: str

    def own_ascents(self, gradient=rank_gradient):
        """The ascent gradients of the ranks: their own, or with the scope "global" the same for all."""
        own = [gradient(self.w, part) for part in self.window]
        return own if self.scope == "rank" else [mean(own)] * len(own)

    def descent(self, displacements):
        """The mean over ranks of the gradients at weights that each displaces by its own."""
        points = [{name: self.w[name] + e[name] for name in self.w} for e in displacements]
        return mean([rank_gradient(w, part) for w, part in zip(points, self.window, strict=True)])

    def normal(self, purpose, rank):
        number = 0 if self.scope == "rank" and rank is None else rank
        key = f"{SEED}/{self.t}/{purpose}/{'all' if self.scope == 'global' else number}"
        seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") // 2
        generator = torch.Generator().manual_seed(seed)
        return {
            name: torch.randn(value.shape, generator=generator, dtype=value.dtype) for name, value in self.w.items()
        }


def to_radius(direction, rho=RHO):
    return {name: rho * value / (norm(direction) + EPS) for name, value in direction.items()}


def mixed(left, right, share):
    return {name: (1 - share) * left[name] + share * right[name] for name in left}


class SAM:
    """SAM itself, whose ascent gradients others change."""

    def ascents(self, now):
        return now.own_ascents()

    def gradient(self, now):
        return now.descent([to_radius(a) for a in self.ascents(now)])


class VaSSO(SAM):
    def __init__(self, theta):
        self.theta, self.s = theta, None

    def ascents(self, now):
        a = now.own_ascents()
        self.s = a if self.s is None else [mixed(s, own, self.theta) for s, own in zip(self.s, a, strict=True)]
        return self.s


class Friendly(SAM):
    def __init__(self, sigma, momentum):
        self.sigma, self.momentum, self.m = sigma, momentum, None

    def ascents(self, now):
        a = now.own_ascents()
        if self.m is None:
            self.m = a
            return a
        q = [{n: own[n] - self.sigma * m[n] for n in own} for m, own in zip(self.m, a, strict=True)]
        self.m = [mixed(own, m, self.momentum) for m, own in zip(self.m, a, strict=True)]
        return q


class Momentum:
    def gradient(self, now):
        away = {name: -value for name, value in now.adam.state[0].items()}
        return now.descent([to_radius(away)] * len(now.window))


class Random:
    def gradient(self, now):
        return now.descent([to_radius(now.normal("random ascent", rank)) for rank in range(len(now.window))])


class Previous:
    def __init__(self):
        self.p = None

    def gradient(self, now):
        zero = {name: torch.zeros_like(value) for name, value in now.w.items()}
        self.p = now.descent([zero if self.p is None else to_radius(self.p)] * len(now.window))
        return self.p


class Stale:
    def __init__(self, fraction=1.0):
        self.a, self.fraction = None, fraction

    def clean(self, now):
        return mean([rank_gradient(now.w, part_of(part, self.fraction)) for part in now.window])

    def gradient(self, now):
        before = self.clean(now) if self.a is None else self.a
        self.a = self.clean(now)
        return now.descent([to_radius(before)] * len(now.window))


class OtherBatch(SAM):
    def ascents(self, now):
        own = [rank_gradient(now.w, part) for part in now.upcoming]
        return own if now.scope == "rank" else [mean(own)] * len(own)


class RandomSmoothing(SAM):
    def __init__(self, start, end):
        self.start, self.end = start, end

    def noise(self, now, rank):
        turned = (1 - math.cos(math.pi * now.t / (now.updates - 1))) / 2
        sigma = self.start + (self.end - self.start) * turned
        noise = {}
        for name, u in now.normal("random smoothing", rank).items():
            w = now.w[name]
            rows = w.pow(2).sum(-1, keepdim=True).sqrt() if w.dim() > 1 else w.pow(2).sum().sqrt()
            noise[name] = sigma * rows * u
        return noise

    def ascents(self, now):
        noise = [self.noise(now, rank) for rank in range(len(now.window))]
        b = [rank_gradient({n: now.w[n] + u[n] for n in u}, part) for u, part in zip(noise, now.window, strict=True)]
        if now.scope == "global":
            b = [mean(b)] * len(b)
        # The authors' direction.
        return [{n: 2 * own[n] + u[n] for n in u} for own, u in zip(b, noise, strict=True)]


def part_of(micro_batches, fraction):
    if len(micro_batches) > 1:
        return micro_batches[: math.ceil(fraction * len(micro_batches))]
    ((x, labels),) = micro_batches
    rows = math.ceil(fraction * len(x))
    return [(x[:rows], labels[:rows])]


class Fraction(SAM):
    def __init__(self, fraction):
        self.fraction = fraction

    def ascents(self, now):
        return now.own_ascents(lambda w, own: rank_gradient(w, part_of(own, self.fraction)))


class BiSAM(SAM):
    def __init__(self, form):
        self.form = form

    def batch_gradient(self, w, batch):
        w = {name: value.detach().requires_grad_() for name, value in w.items()}
        x, labels = batch
        z = torch.tanh(x @ w["inner.weight"].T + w["inner.bias"]) @ w["outer.weight"].T + w["outer.bias"]
        total = 0.0
        for row, label in zip(z, labels, strict=True):
            margin = row - row[label]
            if self.form == "tanh":
                total = total + torch.log(torch.exp(10 * torch.tanh(0.1 * margin)).sum()) / 10
            else:
                total = total + torch.log(torch.exp(1 - torch.log(1 + (math.e - 1) * torch.exp(-margin))).sum())
        return dict(zip(w, torch.autograd.grad(total / len(x), list(w.values())), strict=True))

    def ascents(self, now):
        return now.own_ascents(lambda w, own: mean([self.batch_gradient(w, batch) for batch in own]))


class Sometimes(SAM):
    def __init__(self, probability):
        self.probability = probability

    def perturbs(self, t):
        seed = int.from_bytes(hashlib.sha256(f"{SEED}/{t}/when to perturb/all".encode()).digest()[:8], "big") // 2
        return seed / 2**63 < self.probability

    def gradient(self, now):
        return super().gradient(now) if self.perturbs(now.t) else window_gradient(now.w, now.window)


def train(rule, w, stream, scope, updates=None):
    """`updates`: of the whole run, if some of its windows are not in the stream since they were skipped."""
    adam = reference.Adam(w, updates or len(stream))
    for t, (window, upcoming) in enumerate(zip(stream, [*stream[1:], stream[0]], strict=True)):
        w = adam.step(w, rule.gradient(Now(w, window, upcoming, t, adam.updates, adam, scope)))
    return w
