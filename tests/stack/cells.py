"""What is run of every host, on any number of ranks: in go its name and a folder, out come its weights and its log."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from hf_sam import SAMConfig
from tests.stack.hosts import HOSTS, make_trainer
from tests.stack.reference import TwoPass, train_sampa, weights_of


RHO = 0.05
SAMPA = {"method": "sampa", "lookahead": "gradient"}
CONFIGS = {
    "stock": None,
    "sam, ρ = 0": SAMConfig(rho=0.0),
    "sam": SAMConfig(rho=RHO),
    "sampa, ρ = λ = 0": SAMConfig(rho=0.0, sampa_lambda=0.0, **SAMPA),
    "sampa": SAMConfig(rho=RHO, sampa_lambda=0.3, **SAMPA),
}
# Windows of one micro-batch: what a reference knows.
SHORT = {"gradient_accumulation_steps": 1}
# Not the same in two runs, or ours.
TIMES = ("step_time", "runtime", "per_second", "profiling/", "sam/", "total_flos")


def outcome(trainer: Any) -> dict[str, Any]:
    names = {weight: name for name, weight in trainer.model.named_parameters()}
    # Those that the model does not have are named by their place.
    weights = {
        names.get(weight, f"other {place}"): weight.detach().clone()
        for place, weight in enumerate(weights_of(trainer.optimizer))
    }
    log = [
        {name: value for name, value in entry.items() if not any(word in name for word in TIMES)}
        for entry in trainer.state.log_history
    ]
    return {"weights": weights, "log": log, "steps": trainer.state.global_step}


def run(config: str, host: str, folder: Path, **arguments) -> dict[str, Any]:
    trainer = make_trainer(host, folder, CONFIGS[config], **arguments)
    trainer.train()
    return outcome(trainer)


def two_pass(host: str, folder: Path) -> dict[str, Any]:
    trainer = make_trainer(host, folder, None, over=TwoPass, **SHORT)
    trainer.train()
    return outcome(trainer)


def sampa_loop(host: str, folder: Path) -> dict[str, Any]:
    trainer = make_trainer(host, folder, None, **SHORT)
    train_sampa(trainer, RHO, 0.3)
    return outcome(trainer)


RUNS: dict[str, Callable[[str, Path], dict[str, Any]]] = {name: partial(run, name) for name in CONFIGS}
RUNS |= {f"{name}, short": partial(run, name, **SHORT) for name in ("sam", "sampa")}
RUNS |= {"two-pass": two_pass, "sampa loop": sampa_loop}

REFERENCES = {"sam": "two-pass", "sampa": "sampa loop"}


def is_refused(host: str, method: str, ranks: int) -> bool:
    return (method, ranks) in HOSTS[host].refused


def largest_difference(left: dict[str, Any], right: dict[str, Any]) -> float:
    ours, theirs = left["weights"], right["weights"]
    assert ours.keys() == theirs.keys()
    return max(float((ours[name].double() - theirs[name].double()).abs().max()) for name in ours)


def same_bits(left: dict[str, Any], right: dict[str, Any]) -> bool:
    ours, theirs = left["weights"], right["weights"]
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
