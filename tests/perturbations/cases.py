"""The table of perturbations: what each is run with, its formula, and where it is plain SAM."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests import harness
from tests.perturbations import averaged, scaled


RHO, LAMBDA = 0.3, 0.1
NORM = ("norm.weight", "norm.bias")


@dataclass(frozen=True)
class Case:
    """
    Args:
        perturbation (`str`): its registered name.
        rule (`Callable`): makes its independent formula (see `formulas.py`).
        args (`dict`): `perturbation_args`.
        config (`dict`): what else is set in `SAMConfig`.
        limit (`dict`, *optional*): changes of `args` with which it gives SAM's bits.
        methods, scopes (`tuple`): those it works with.
        rows (`int`): gradients of single rows each time that a mask is made.
        state (`bool`): whether it has one.
        moves (`tuple`): names of the weights that may be displaced; empty for all.
        longest (`float`): bound of the displacement's length, in units of ρ (ASAM's is the largest T).
    """

    perturbation: str
    rule: Callable[[], Any]
    args: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    limit: dict[str, Any] | None = None
    methods: tuple[str, ...] = ("sam", "sampa")
    scopes: tuple[str, ...] = ("rank", "global", "micro_batch")
    state: bool = False
    rows: int = 0
    moves: tuple[str, ...] = ()
    longest: float = 1.0

    def run(self, method: str = "sam", changes: dict[str, Any] | None = None, **options: Any) -> harness.Run:
        """A run of `TinyModel`. `changes`: of `args`."""
        scope = {} if method == "sampa" else {"ascent_scope": options.pop("scope", "rank")}
        config = {
            "rho": RHO,
            "perturbation": self.perturbation,
            "perturbation_args": self.args | (changes or {}),
            **scope,
            **self.config,
        }
        options["model"] = {"layer_norm": True} | options.get("model", {})
        return harness.Run(method=method, config=config, **options)


CASES = {
    "gradient": Case("gradient", scaled.Gradient, limit={}),
    "chosen by name": Case(
        "gradient",
        lambda: scaled.Gradient(("inner.weight", "outer.weight", "outer.bias")),
        config={"perturb_modules": ["inner", "outer.*", "!inner.bias"]},
        moves=("inner.weight", "outer.weight", "outer.bias"),
    ),
    "asam": Case("asam", scaled.Adaptive, limit={"scaled": []}, longest=1.5),
    "asam of all weights": Case(
        "asam",
        lambda: scaled.Adaptive(0.5, ("inner.weight", "inner.bias", *NORM, "outer.weight", "outer.bias")),
        {"eta": 0.5, "scaled": ["*"]},
        longest=2.0,
    ),
    "samson": Case("samson", lambda: scaled.Adaptive(0.1, ranged=True), {"eta": 0.1}, limit={"scaled": []}),
    "sam_on": Case("sam_on", lambda: scaled.Gradient(NORM), moves=NORM),
    "sam_on as asam": Case("sam_on", lambda: scaled.Adaptive(names=NORM), {"form": "asam"}, moves=NORM, longest=1.5),
    "sam_on without norms": Case(
        "sam_on",
        lambda: scaled.Gradient(("inner.weight", "inner.bias", "outer.weight", "outer.bias")),
        {"no_norm": True},
        moves=("inner.weight", "inner.bias", "outer.weight", "outer.bias"),
    ),
    "fisher": Case(
        "fisher",
        lambda: scaled.Fisher(0.25, ("inner.bias", "norm.bias", "outer.bias"), interval=5),
        {"keep": 0.25, "interval": 5},
        limit={"keep": 1.0},
        state=True,
    ),
    "fisher as the authors'": Case(
        "fisher",
        lambda: scaled.Fisher(0.1, interval=1, whole_norm=True),
        {"keep": 0.1, "interval": 1, "norm": "whole", "whole": []},
        state=True,
    ),
    "sparse": Case(
        "sparse",
        lambda: scaled.SparseFisher(0.5, 6, interval=4),
        {"sparsity": 0.5, "rows": 6, "interval": 4},
        limit={"sparsity": 0.0},
        state=True,
        rows=6,
    ),
    "sparse dynamic": Case(
        "sparse",
        lambda: scaled.SparseDynamic(0.6, 0.5, 3, interval=3),
        {"form": "dynamic", "sparsity": 0.6, "drop": 0.5, "seed": 3, "interval": 3},
        limit={"sparsity": 0.0},
        state=True,
    ),
    "zsharp": Case("zsharp", lambda: scaled.ZSharp(0.7), {"quantile": 0.7}, limit={"quantile": 0.0}),
    "zsharp by matrix": Case(
        "zsharp", lambda: scaled.ZSharp(0.95, each=True), {"quantile": 0.95, "radius": "matrix"}, longest=3.0
    ),
    "preconditioned": Case("preconditioned", lambda: scaled.Preconditioned(1.0), limit={"exponent": 0.0}),
    "preconditioned by half": Case("preconditioned", lambda: scaled.Preconditioned(0.5), {"exponent": 0.5}),
    "loss_budget": Case(
        "loss_budget",
        lambda: scaled.LossBudget(0.1, 0.5),
        {"budget": 0.1, "anneal": 0.5},
        limit={"budget": 1e9, "anneal": 0.0},
    ),
    # With the scope "rank" each rank has an average of its own, which test_ascents.py looks at.
    "friendly": Case(
        "friendly",
        lambda: averaged.Friendly(0.8, 0.7),
        {"sigma": 0.8, "momentum": 0.7},
        limit={"sigma": 0.0},
        scopes=("global",),
        state=True,
    ),
    "vasso": Case(
        "vasso", lambda: averaged.VaSSO(0.4), {"theta": 0.4}, limit={"theta": 1.0}, scopes=("global",), state=True
    ),
}
