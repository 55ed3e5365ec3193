"""Which directions lead to a minimum: f(x) = ‖x‖² with a decaying step, and the methods and perturbations that need
their ascent gradient one update earlier, from a moving average, or not at all.

    python benchmarks/convergence.py
"""

import argparse
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from hf_sam import SAMConfig
from hf_sam.engine import GradientEngine, MicroBatch
from hf_sam.methods import METHODS, Method, Update
from hf_sam.rng import Draws


RHO, START, UPDATES = 0.1, (0.2, -0.1), 4000
SAMPA = {"method": "sampa", "lookahead": "gradient"}
# Those of the first line stay at a distance of about ρ from the minimum.
CONFIGS = {
    "OptSAM": {"perturbation": "previous"},
    "RandSAM": {"perturbation": "random"},
    "SAM": {},
    "SAMPa-0": SAMPA | {"sampa_lambda": 0.0},
    "SAMPa-0.1": SAMPA | {"sampa_lambda": 0.1},
    "stale SAM": {"method": "stale"},
    "VaSSO": {"perturbation": "vasso"},
    # With the λ of the authors' script; the longer the average, the longer it takes to get there.
    "F-SAM": {"perturbation": "friendly", "perturbation_args": {"momentum": 0.6}},
    "MSAM": {"perturbation": "momentum"},
}


class Quadratic(nn.Module):
    """f(x) = ‖x‖²."""

    def __init__(self):
        super().__init__()
        self.x = nn.Parameter(torch.tensor(START, dtype=torch.float64))

    def forward(self) -> Tensor:
        return (self.x**2).sum()


class SGDWithMomentum(torch.optim.SGD):
    """Whose momentum stands where Adam has it, so that MSAM finds it."""

    def step(self, closure=None):
        super().step(closure)
        for state in self.state.values():
            state["exp_avg"] = state["momentum_buffer"]


def descend(method: Method, updates: int = UPDATES, seed: int = 0, momentum: float = 0.0) -> list[float]:
    """f(x_t) for t = 0 … `updates`, by SGD with the step 0.3 (1 - momentum) / √(t + 1)."""
    model = Quadratic()
    lr = 0.3 * (1.0 - momentum)
    optimizer = (SGDWithMomentum if momentum else torch.optim.SGD)(model.parameters(), lr=lr, momentum=momentum)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda update: (update + 1) ** -0.5)

    def run_micro_batch(_: MicroBatch) -> Tensor:
        loss = model()
        loss.backward()
        return loss.detach()

    engine = GradientEngine(model, optimizer, run_micro_batch, nullcontext, torch.device("cpu"))
    window = [MicroBatch(None)]
    values = [float(model().detach())]
    for number in range(updates):
        method.update_gradient(engine, Update(window, RHO, window, number, updates, Draws(seed, number)))
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        values.append(float(model().detach()))
    return values


def compare(updates: int = UPDATES) -> dict[str, list[float]]:
    """Name of the method -> f(x_t)."""
    curves = {}
    for name, options in CONFIGS.items():
        config = SAMConfig(rho=RHO, **options)
        momentum = 0.9 if config.perturbation == "momentum" else 0.0
        curves[name] = descend(METHODS[config.method](config), updates, momentum=momentum)
    return curves


def plot(curves: dict[str, list[float]], path: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4))
    for name, values in curves.items():
        # Near the minimum SAM jumps from side to side, so a point is the mean of the updates since half its time.
        points = [2**exponent for exponent in range(1, len(values).bit_length())]
        axes.loglog(points, [sum(values[p // 2 : p]) / (p - p // 2) for p in points], "o-", label=name, markersize=3)
    axes.set(xlabel="update", ylabel="f(x) = ‖x‖²", title=f"ρ = {RHO}, step 0.3 / √t, from {START}")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--output", default="benchmarks/results/convergence.png", help="where the plot goes (default: %(default)s)"
    )
    curves = compare()
    plot(curves, parser.parse_args().output)
    for name, values in curves.items():
        print(f"{name:10} f = {values[0]:.3g} at the start, {sum(values[-100:]) / 100:.2e} over the last 100 updates")


if __name__ == "__main__":
    main()
