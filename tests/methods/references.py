"""The methods once more, independently: float64 formulas on dictionaries of arrays, over windows of several ranks.

Each takes the gradient function g(w), the weights, the radius and a dictionary for what it keeps, and returns what the
optimizer steps with.
"""

import math

from tests.reference import norm, perturbed


def dot(a, b):
    return sum((a[name] * b[name]).sum() for name in a)


def plus(a, b, factor):
    return {name: a[name] + factor * b[name] for name in a}


def penalty(g, w, rho, kept, alpha=0.8):
    a = g(w)
    p = g(perturbed(w, a, rho))
    return {name: (1 - alpha) * a[name] + alpha * p[name] for name in a}


def gsam(g, w, rho, kept, alpha=0.4, minimize_perturbed=True):
    a = g(w)
    p = g(perturbed(w, a, rho))
    if minimize_perturbed:
        return plus(p, plus(a, p, -dot(a, p) / dot(p, p)), -alpha)
    return plus(a, plus(p, a, -dot(p, a) / dot(a, a)), alpha)


def looksam(g, w, rho, kept, k=5, alpha=0.2):
    a = g(w)
    kept["t"] = kept.get("t", -1) + 1
    if kept["t"] % k:
        return plus(a, kept["u"], alpha * norm(a))
    p = g(perturbed(w, a, rho))
    v = plus(p, a, -dot(p, a) / dot(a, a))
    kept["u"] = {name: value / norm(v) for name, value in v.items()}
    return p


def ae_sam(g, w, rho, kept, updates, decay=0.9, first=1.0, last=-1.0):
    a = g(w)
    t = kept["t"] = kept.get("t", -1) + 1
    n2 = float(norm(a)) ** 2
    kept["mean"] = n2 if t == 0 else decay * kept["mean"] + (1 - decay) * n2
    kept["variance"] = decay * kept.get("variance", 0.0) + (1 - decay) * (n2 - kept["mean"]) ** 2
    c = first + (last - first) * t / updates
    ascends = n2 >= kept["mean"] + c * math.sqrt(kept["variance"])
    kept["ascents"] = kept.get("ascents", 0) + ascends
    return g(perturbed(w, a, rho)) if ascends else a
