"""SAM and SAMPa with any perturbation once more: plain float64 formulas, without hf_sam and without Trainer.

A rule is an object with `displacement(now, a) -> name -> ε`, and `advance(now)` where it has a state.
"""

from dataclasses import dataclass

from tests import reference


@dataclass
class Now:
    """`a` is the ascent gradient of all ranks together; `windows` what each rank or pair of ranks reads."""

    w: dict
    a: dict
    rho: float
    update: int
    updates: int
    adam: reference.Adam
    windows: list
    ranks: int


class Rule:
    def advance(self, now):
        pass


def moved(w, displacement):
    return {name: value + displacement.get(name, 0.0) for name, value in w.items()}


def sam_gradient(rule, window, scope, now):
    """`now(a, windows)` makes a `Now`."""
    if scope == "micro_batch":
        accumulated = []
        for position in range(len(window[0])):
            parts = [[own[position]] for own in window]
            steps = len(window[0]) * reference.HOST_DIVISOR[0]
            own = [reference.batch_gradient(now.w, part[0], steps) for part in parts]
            at = now(reference.mean(own), parts)
            rule.advance(at)
            points = [moved(now.w, rule.displacement(at, a)) for a in own]
            descent = [reference.batch_gradient(w, part[0], steps) for w, part in zip(points, parts, strict=True)]
            accumulated.append(reference.mean(descent))
        return reference.total(accumulated)
    at = now(reference.window_gradient(now.w, window), window)
    rule.advance(at)
    if scope == "global":
        return reference.window_gradient(moved(now.w, rule.displacement(at, at.a)), window)
    own = [reference.rank_gradient(now.w, part) for part in window]
    points = [moved(now.w, rule.displacement(at, a)) for a in own]
    return reference.mean([reference.rank_gradient(w, part) for w, part in zip(points, window, strict=True)])


class At:
    def __init__(self, **values):
        self.values, self.w = values, values["w"]

    def __call__(self, a, windows):
        return Now(a=a, windows=windows, **self.values)


def train(rule, method, scope, w, stream, rho, lam=0.1, ranks=1):
    adam = reference.Adam(w, len(stream))
    if method == "sampa":
        h = reference.window_gradient(w, stream[0])
    for update, (window, upcoming) in enumerate(zip(stream, [*stream[1:], stream[0]], strict=True)):
        now = At(w=w, rho=rho, update=update, updates=len(stream), adam=adam, ranks=ranks)
        if method == "sam":
            w = adam.step(w, sam_gradient(rule, window, scope, now))
            continue
        at = now(h, window)
        rule.advance(at)
        p = reference.window_gradient(moved(w, rule.displacement(at, h)), window)
        h = reference.window_gradient(adam.moved(w, h)[0], upcoming)
        w = adam.step(w, {name: (1 - lam) * p[name] + lam * h[name] for name in w})
    return w
