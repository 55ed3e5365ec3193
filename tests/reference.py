"""The algorithms once more, independently: plain float64 formulas on arrays, without hf_sam and without Trainer.

Weights are the dictionary of `TinyModel` without dropout and BatchNorm; it may have LayerNorm. A window is a list over
ranks of a list over micro-batches of (x, labels).
"""

import torch
from torch.nn.functional import cross_entropy, layer_norm


# Some versions of the host divide the gradient once more by the accumulation steps; `divide_as` takes note of it.
HOST_DIVISOR = [1]


def divide_as(trainer):
    HOST_DIVISOR[0] = trainer.accelerator.gradient_accumulation_steps


def batch_gradient(w, batch, divisor):
    """Gradient of the batch's mean loss over `divisor`."""
    w = {name: value.detach().requires_grad_() for name, value in w.items()}
    x, labels = batch
    hidden = x @ w["inner.weight"].T + w["inner.bias"]
    if "norm.weight" in w:
        hidden = layer_norm(hidden, hidden.shape[-1:], w["norm.weight"], w["norm.bias"])
    logits = torch.tanh(hidden) @ w["outer.weight"].T + w["outer.bias"]
    loss = cross_entropy(logits, labels) / divisor
    return dict(zip(w, torch.autograd.grad(loss, list(w.values())), strict=True))


def total(gradients):
    return {name: sum(gradient[name] for gradient in gradients) for name in gradients[0]}


def mean(gradients):
    return {name: value / len(gradients) for name, value in total(gradients).items()}


def rank_gradient(w, micro_batches):
    divisor = len(micro_batches) * HOST_DIVISOR[0]
    return total([batch_gradient(w, batch, divisor) for batch in micro_batches])


def window_gradient(w, window):
    return mean([rank_gradient(w, micro_batches) for micro_batches in window])


def norm(gradient):
    return torch.sqrt(sum((value**2).sum() for value in gradient.values()))


def perturbed(w, a, rho):
    return {name: w[name] + rho * a[name] / (norm(a) + 1e-12) for name in w}


def sam_gradient(w, window, rho, scope):
    if scope == "global":
        return window_gradient(perturbed(w, window_gradient(w, window), rho), window)
    if scope == "rank":
        return mean([rank_gradient(perturbed(w, rank_gradient(w, own), rho), own) for own in window])
    each = [
        [batch_gradient(perturbed(w, batch_gradient(w, b, len(own)), rho), b, len(own) * HOST_DIVISOR[0]) for b in own]
        for own in window
    ]
    return mean([total(gradients) for gradients in each])


class Optimizer:
    """Decay on matrices only, linear schedule to 0, clipping. `moved` says what a step does."""

    def __init__(self, w, updates, lr=0.02, decay=0.1, max_norm=1.0):
        self.t, self.updates, self.lr, self.decay, self.max_norm = 0, updates, lr, decay, max_norm
        self.state = {}

    @property
    def eta(self):
        return self.lr * (self.updates - self.t) / self.updates

    def decay_of(self, name):
        return 0.0 if name.endswith("bias") or name.startswith("norm.") else self.decay

    def step(self, w, g):
        clip = torch.clamp(self.max_norm / (norm(g) + 1e-6), max=1.0)
        w, self.state = self.moved(w, {name: clip * value for name, value in g.items()})
        self.t += 1
        return w


class Adam(Optimizer):
    """AdamW by its formulas (Loshchilov and Hutter 2019)."""

    def __init__(self, w, updates, betas=(0.9, 0.999), eps=1e-8, amsgrad=False, **options):
        super().__init__(w, updates, **options)
        zeros = {name: torch.zeros_like(value) for name, value in w.items()}
        self.state, self.betas, self.eps, self.amsgrad = (zeros, zeros, zeros), betas, eps, amsgrad

    def moved(self, w, g):
        """Where a step with g leads, and the state that it would leave."""
        (b1, b2), t, (m, v, v_max) = self.betas, self.t + 1, self.state
        m = {name: b1 * m[name] + (1 - b1) * g[name] for name in w}
        v = {name: b2 * v[name] + (1 - b2) * g[name] ** 2 for name in w}
        v_max = {name: torch.maximum(v_max[name], v[name]) for name in w} if self.amsgrad else v
        new = {}
        for name in w:
            step = m[name] / (1 - b1**t) / (torch.sqrt(v_max[name] / (1 - b2**t)) + self.eps)
            new[name] = w[name] * (1 - self.eta * self.decay_of(name)) - self.eta * step
        return new, (m, v, v_max)


class SGD(Optimizer):
    """
    With momentum, as in the authors' script of SAMPa: d = g + decay w; the buffer is d at first, then
    momentum · buffer + (1 - dampening) · d; w moves by the buffer, or by d + momentum · buffer (Nesterov).
    """

    def __init__(self, w, updates, momentum=0.9, dampening=0.0, nesterov=False, **options):
        super().__init__(w, updates, **options)
        self.momentum, self.dampening, self.nesterov = momentum, dampening, nesterov

    def moved(self, w, g):
        new, buffers = {}, {}
        for name in w:
            d = g[name] + self.decay_of(name) * w[name]
            buffers[name] = d
            if name in self.state:
                buffers[name] = self.momentum * self.state[name] + (1 - self.dampening) * d
            direction = d + self.momentum * buffers[name] if self.nesterov else buffers[name]
            new[name] = w[name] - self.eta * direction
        return new, buffers


def train_sam(w, windows, rho, scope, **options):
    adam = Adam(w, len(windows), **options)
    for window in windows:
        w = adam.step(w, sam_gradient(w, window, rho, scope))
    return w


def train_sampa(
    w, windows, rho, lam, lookahead="optimizer", after_the_last=None, updates=None, optimizer=Adam, **options
):
    """
    Algorithm 1 of Xie et al. 2024 with the trial step of the authors' script, whose first update is unperturbed: here
    it has h_0 = g(w_0; W_0).

    `after_the_last`: the window that follows the last update; `None` ends the stream (λ = 0).
    """
    base = optimizer(w, updates or len(windows), **options)
    h = window_gradient(w, windows[0])
    for window, upcoming in zip(windows, [*windows[1:], after_the_last], strict=True):
        p = window_gradient(perturbed(w, h, rho), window)
        if upcoming is None:
            return base.step(w, p)
        if lookahead == "optimizer":
            y, _ = base.moved(w, h)
        else:
            y = {name: w[name] - base.eta * h[name] for name in w}
        h = window_gradient(y, upcoming)
        w = base.step(w, {name: (1 - lam) * p[name] + lam * h[name] for name in w})
    return w


def windows_of(rows, epochs, shards, accumulation, batch_size):
    """The windows of `epochs` passes over `rows` in order, split as a sampler that deals batches to shards in turn."""
    batches = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    batches = [(torch.stack([r["x"] for r in b]), torch.stack([r["labels"] for r in b])) for b in batches]
    assert len(batches) % shards == 0, "the reference knows no wrapped-around batches"
    per_shard = [batches[shard::shards] for shard in range(shards)]
    epoch = []
    for start in range(0, len(per_shard[0]), accumulation):
        epoch.append([own[start : start + accumulation] for own in per_shard])
    return epoch * epochs
