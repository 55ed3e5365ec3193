"""Optimizers of many makers, made on equal terms, and every bit that they hold, to compare."""

import importlib
from collections import deque
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import pytest
import torch


@dataclass(frozen=True)
class Maker:
    """`path` names the class. Not every optimizer takes vectors, and some have options for their matrices only."""

    path: str
    options: dict[str, Any] = field(default_factory=dict)
    matrix_options: dict[str, Any] = field(default_factory=dict)
    takes_vectors: bool = True

    @property
    def optimizer_class(self) -> type[torch.optim.Optimizer] | None:
        """`None` where its package, or its version of torch, is not here."""
        module, name = self.path.rsplit(".", 1)
        try:
            return getattr(importlib.import_module(module), name, None)
        except ImportError:
            return None


DECAY = {"weight_decay": 0.1}
LOW_RANK = {"rank": 8, "update_proj_gap": 2, "scale": 0.5, "proj_type": "std"}
OPTIMIZERS = {
    "SGD": Maker("torch.optim.SGD", DECAY),
    "SGD with momentum": Maker("torch.optim.SGD", DECAY | {"momentum": 0.9, "dampening": 0.1}),
    "SGD of Nesterov": Maker("torch.optim.SGD", DECAY | {"momentum": 0.9, "nesterov": True}),
    "Adam": Maker("torch.optim.Adam", DECAY),
    "AdamW": Maker("torch.optim.AdamW", {"amsgrad": True}),
    "RAdam": Maker("torch.optim.RAdam", DECAY),
    "NAdam": Maker("torch.optim.NAdam", DECAY),
    "Adagrad": Maker("torch.optim.Adagrad", DECAY | {"lr_decay": 0.1}),
    "RMSprop": Maker("torch.optim.RMSprop", DECAY | {"momentum": 0.9, "centered": True}),
    "Adadelta": Maker("torch.optim.Adadelta", DECAY),
    "Adamax": Maker("torch.optim.Adamax", DECAY),
    "ASGD": Maker("torch.optim.ASGD", DECAY | {"t0": 1}),
    "Rprop": Maker("torch.optim.Rprop"),
    "Adafactor of torch": Maker("torch.optim.Adafactor", DECAY),
    "Muon": Maker("torch.optim.Muon", takes_vectors=False),
    "Muon beside AdamW": Maker("tests.optimizers.MuonBesideAdamW"),
    "everything": Maker("tests.optimizers.KeepsEverything"),
    "Adafactor": Maker("transformers.Adafactor", {"relative_step": False, "beta1": 0.9}),
    "Adafactor without lr": Maker("transformers.Adafactor", {"lr": None, "warmup_init": True}),
    "AdamW, schedule-free": Maker("schedulefree.AdamWScheduleFree", DECAY | {"warmup_steps": 2}),
    "SGD, schedule-free": Maker("schedulefree.SGDScheduleFree", DECAY),
    "RAdam, schedule-free": Maker("schedulefree.RAdamScheduleFree", DECAY),
    "AdamW in 8 bits of bitsandbytes": Maker("bitsandbytes.optim.AdamW8bit"),
    "Lion in 8 bits of bitsandbytes": Maker("bitsandbytes.optim.Lion8bit"),
    "AdEMAMix in 8 bits of bitsandbytes": Maker("bitsandbytes.optim.AdEMAMix8bit"),
    "AdEMAMix of bitsandbytes": Maker("bitsandbytes.optim.AdEMAMix", {"t_alpha": 3, "t_beta3": 3}),
    "paged AdamW of bitsandbytes": Maker("bitsandbytes.optim.PagedAdamW"),
    "AdamW in 8 bits of torchao": Maker("torchao.optim.AdamW8bit"),
    "AdamW in 4 bits of torchao": Maker("torchao.optim.AdamW4bit"),
    "Lion": Maker("lion_pytorch.Lion", DECAY),
    "StableAdamW": Maker("optimi.StableAdamW", DECAY),
    "GrokAdamW": Maker("grokadamw.GrokAdamW"),
    "Prodigy": Maker("prodigyopt.Prodigy", {"lr": 1.0}),
    "GaLore": Maker("galore_torch.GaLoreAdamW", matrix_options=LOW_RANK),
    "APOLLO": Maker("apollo_torch.APOLLOAdamW", matrix_options=LOW_RANK | {"proj": "random", "scale_type": "channel"}),
    "SOAP": Maker("pytorch_optimizer.SOAP", {"precondition_frequency": 2}),
    "AdEMAMix": Maker("pytorch_optimizer.AdEMAMix", {"t_alpha_beta3": 3}),
    "Ranger21": Maker("pytorch_optimizer.Ranger21", {"num_iterations": 10}),
}


# Muon takes no biases, GaLore and APOLLO need options that name their matrices, Adafactor without a learning rate has
# a schedule of its own, and the last two keep state where no checkpoint has it.
LEFT_OUT = ("Muon", "GaLore", "APOLLO", "Adafactor without lr", "GrokAdamW", "everything")
TRAINED = [name for name in OPTIMIZERS if name not in LEFT_OUT]


def make(name: str, dtype: torch.dtype) -> tuple[list[torch.nn.Parameter], torch.optim.Optimizer]:
    """The same weights and the same optimizer each time. One weight has as many elements as 8-bit states need."""
    maker = maker_of(name)
    generator = torch.Generator().manual_seed(1)
    shapes = [(40, 30), (512, 16), (30,), (3,)]
    weights = [torch.nn.Parameter(normal(shape, dtype, generator)) for shape in shapes]
    groups = [{"params": weights[:2], **maker.matrix_options}, {"params": weights[2:]}]
    if not maker.takes_vectors:
        weights, groups = weights[:2], groups[:1]
    torch.manual_seed(2)
    optimizer = maker.optimizer_class(groups, **{"lr": 0.01} | maker.options)
    if hasattr(optimizer, "train"):
        optimizer.train()
    return weights, optimizer


def maker_of(name: str) -> Maker:
    """Skips the test where the optimizer is not here."""
    if OPTIMIZERS[name].optimizer_class is None:
        pytest.skip(f"{OPTIMIZERS[name].path} is not here")
    return OPTIMIZERS[name]


def bits(value, seen=()):
    """What an optimizer, or anything that it holds, says in full, as plain values that can be compared."""
    if isinstance(value, torch.Tensor):
        if hasattr(value, "__tensor_flatten__"):
            return [bits(getattr(value, name)) for name in value.__tensor_flatten__()[0]]
        raw = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        return str(value.dtype), tuple(value.shape), raw
    if isinstance(value, torch.Generator):
        return bits(value.get_state())
    if id(value) in seen:
        return "seen"
    seen = (*seen, id(value))
    if isinstance(value, dict):
        # Weights are keys; their order is that of the groups.
        return [(key if isinstance(key, (str, int)) else "key", bits(entry, seen)) for key, entry in value.items()]
    if isinstance(value, (list, tuple, deque)):
        return [bits(entry, seen) for entry in value]
    if hasattr(value, "__dict__") and not isinstance(value, (type, ModuleType)) and not callable(value):
        return type(value).__name__, bits(vars(value), seen)
    return value.copy() if isinstance(value, set) else value


def normal(shape, dtype, generator) -> torch.Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


class MuonBesideAdamW(torch.optim.Optimizer):
    """Muon for matrices and AdamW for the rest, as the users of Muon write it: one state, two optimizers inside."""

    def __init__(self, params, lr, **options):
        super().__init__(params, {"lr": lr, **options})
        weights = [weight for group in self.param_groups for weight in group["params"]]
        self.inner = [
            maker_of("Muon").optimizer_class([weight for weight in weights if weight.dim() == 2], lr=lr),
            torch.optim.AdamW([weight for weight in weights if weight.dim() != 2], lr=lr),
        ]
        self._share()

    def _share(self):
        for optimizer in self.inner:
            optimizer.state = self.state

    def load_state_dict(self, state_dict):
        super().load_state_dict(state_dict)
        self._share()

    def step(self, closure=None):
        for optimizer in self.inner:
            optimizer.param_groups[0]["lr"] = self.param_groups[0]["lr"]
            optimizer.step()


class Counter:
    def __init__(self):
        self.count, self.last = 0, torch.zeros(3)


class KeepsEverything(torch.optim.Optimizer):
    """
    Keeps what a step may keep, wherever it may: numbers, lists, sets, objects, tensors, a generator of its own; draws
    from the global stream, writes over the gradient, and takes a missing gradient for zeros.
    """

    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr, "updates": 0, "recent": [None, [0.0]], "span": (torch.zeros(()), {})})
        self.counter, self.history, self.seen = Counter(), {"norms": []}, set()
        self.generator = torch.Generator().manual_seed(3)
        self.averages = [w.detach().clone() for group in self.param_groups for w in group["params"]]

    @torch.no_grad()
    def step(self, closure=None):
        self.counter.count += 1
        self.counter.last += 1
        self.seen.add(self.counter.count)
        self.history["norms"].append(self.counter.count)
        weights = [w for group in self.param_groups for w in group["params"]]
        for group in self.param_groups:
            group["updates"] += 1
            group["recent"][1][0] += 0.5
            group["recent"][0] = group["updates"]
            group["span"][0].add_(1)
            group["span"][1][group["updates"]] = 1
            group.setdefault("first", group["updates"])
            for weight in group["params"]:
                state = self.state[weight]
                gradient = torch.zeros_like(weight) if weight.grad is None else weight.grad
                gradient += 0.1 * torch.randn_like(gradient)
                gradient += 0.1 * torch.randn(gradient.shape, generator=self.generator)
                state["counter"] = state.get("counter", Counter())
                state["counter"].count += 1
                state["tensors"] = [*state.get("tensors", [])[-1:], gradient.clone()]
                weight.mul_(1 - 0.01 * state["counter"].count).sub_(sum(state["tensors"]), alpha=group["lr"])
        torch._foreach_lerp_(self.averages, weights, 0.2)
