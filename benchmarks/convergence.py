"""Why SAMPa computes a second gradient: f(x) = ‖x‖² with a decaying step, SAM and SAMPa against two naive ways to
compute both gradients of SAM at once (Xie, Pethick and Cevher 2024, section 3).

    python benchmarks/convergence.py
"""

import argparse
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from hf_sam import SAMConfig
from hf_sam.engine import GradientEngine, MicroBatch
from hf_sam.methods import Method, Update
from hf_sam.methods.sam import SAM
from hf_sam.methods.sampa import SAMPa


RHO, START, UPDATES = 0.1, (0.2, -0.1), 4000


class OptSAM(Method):
    """Perturbs along the gradient at the previous perturbed weights, which is at hand without waiting."""

    gradients_per_update = 1

    def __init__(self, config: SAMConfig):
        super().__init__(config)
        self.direction: Tensor | None = None

    def window_gradient(self, engine, update):
        (weight,) = engine.weights
        direction = weight.detach() if self.direction is None else self.direction
        at = weight.detach() + update.rho * direction / direction.norm()
        weight.grad = self.direction = 2 * at


class RandSAM(Method):
    """Perturbs along a random direction."""

    gradients_per_update = 1

    def window_gradient(self, engine, update):
        (weight,) = engine.weights
        direction = torch.randn_like(weight)
        weight.grad = 2 * (weight.detach() + update.rho * direction / direction.norm())


class Quadratic(nn.Module):
    """f(x) = ‖x‖²."""

    def __init__(self):
        super().__init__()
        self.x = nn.Parameter(torch.tensor(START, dtype=torch.float64))

    def forward(self) -> Tensor:
        return (self.x**2).sum()


def descend(method: Method, updates: int = UPDATES, seed: int = 0) -> list[float]:
    """f(x_t) for t = 0 … `updates`, by SGD with the step 0.5 / (t + 1)^0.75."""
    torch.manual_seed(seed)
    model = Quadratic()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda update: (update + 1) ** -0.75)

    def run_micro_batch(_: MicroBatch) -> Tensor:
        loss = model()
        loss.backward()
        return loss.detach()

    engine = GradientEngine(model, optimizer, run_micro_batch, nullcontext, torch.device("cpu"))
    window = [MicroBatch(None)]
    update = Update(window, RHO, upcoming=window)
    values = [float(model().detach())]
    for _ in range(updates):
        method.window_gradient(engine, update)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        values.append(float(model().detach()))
    return values


def compare(updates: int = UPDATES) -> dict[str, list[float]]:
    """Name of the method -> f(x_t)."""
    sampa = {"method": "sampa", "rho": RHO, "lookahead": "gradient"}
    methods = {
        "SAM": SAM(SAMConfig(rho=RHO)),
        "SAMPa-0": SAMPa(SAMConfig(**sampa, sampa_lambda=0.0)),
        "SAMPa-0.1": SAMPa(SAMConfig(**sampa, sampa_lambda=0.1)),
        "OptSAM": OptSAM(SAMConfig(rho=RHO)),
        "RandSAM": RandSAM(SAMConfig(rho=RHO)),
    }
    return {name: descend(method, updates) for name, method in methods.items()}


def plot(curves: dict[str, list[float]], path: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4))
    for name, values in curves.items():
        # Near the minimum SAM jumps from side to side, so a point is the mean of the updates since half its time.
        points = [2**exponent for exponent in range(1, len(values).bit_length())]
        axes.loglog(points, [sum(values[p // 2 : p]) / (p - p // 2) for p in points], "o-", label=name, markersize=3)
    axes.set(xlabel="update", ylabel="f(x) = ‖x‖²", title=f"ρ = {RHO}, step 0.5 / t^0.75, from {START}")
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
