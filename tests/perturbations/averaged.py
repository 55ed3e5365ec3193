"""The rules of perturbations with a moving average of the gradients, as plain formulas."""

from tests import reference
from tests.perturbations.formulas import Rule
from tests.perturbations.scaled import to_radius


class VaSSO(Rule):
    def __init__(self, theta):
        self.theta, self.s = theta, None

    def advance(self, now):
        old = self.s or now.a
        self.s = {name: (1 - self.theta) * old[name] + self.theta * a for name, a in now.a.items()}

    def displacement(self, now, a):
        return to_radius(self.s, reference.norm(self.s), now.rho)


class Friendly(Rule):
    def __init__(self, sigma, momentum):
        self.sigma, self.momentum, self.m = sigma, momentum, None

    def advance(self, now):
        if self.m is None:
            self.q, self.m = now.a, now.a
            return
        self.q = {name: a - self.sigma * self.m[name] for name, a in now.a.items()}
        self.m = {name: self.momentum * self.m[name] + (1 - self.momentum) * a for name, a in now.a.items()}

    def displacement(self, now, a):
        return to_radius(self.q, reference.norm(self.q), now.rho)
