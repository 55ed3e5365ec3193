"""Models whose parameters are not all trained, or not all used, and a trainer that watches what is perturbed."""

from itertools import pairwise

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import Trainer, TrainerCallback

from tests import harness
from tests.host import setups, trainers


class Watching(Trainer):
    """Notes, for each gradient, how far every parameter is from where it was when the update began."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.displacements: list[dict[str, float]] = trainers.Notes()
        trainer = self

        class Remember(TrainerCallback):
            def on_step_begin(self, args, state, control, **kwargs):
                trainer.start = {name: value.detach().clone() for name, value in trainer.model.named_parameters()}

        self.add_callback(Remember())

    def training_step(self, model, inputs, num_items_in_batch=None):
        parameters = self.model.named_parameters()
        moved = {name: float((value.detach() - self.start[name]).norm()) for name, value in parameters}
        self.displacements.append({name: distance for name, distance in moved.items() if distance})
        return super().training_step(model, inputs, num_items_in_batch)


def with_adapters() -> nn.Module:
    config = LoraConfig(r=2, lora_alpha=4, target_modules=["query", "value"], lora_dropout=0.0, task_type="SEQ_CLS")
    torch.manual_seed(2)
    return get_peft_model(setups.classifier(), config).double()


class Skipping(nn.Module):
    """
    Two branches beside each other. The second is used, by `when`, for "every other pass" or "positive" batches, whose
    first number is above zero; a third is never used.
    """

    def __init__(self, when: str):
        super().__init__()
        torch.manual_seed(4)
        self.first = nn.Linear(harness.FEATURES, harness.CLASSES)
        self.second = nn.Linear(harness.FEATURES, harness.CLASSES)
        self.third = nn.Linear(harness.FEATURES, harness.CLASSES)
        self.when, self.passes = when, 0
        self.double()

    def forward(self, x, labels=None):
        self.passes += 1
        used = bool(x[0, 0] > 0) if self.when == "positive" else self.passes % 2 == 1
        logits = self.first(x).tanh()
        if used:
            logits = logits + self.second(x)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def gradients(model, window):
    """Of the mean over micro-batches; `None` for a parameter that is not used in any."""
    model.zero_grad()
    for x, labels in window:
        (model(x, labels)["loss"] / len(window)).backward()
    return [None if weight.grad is None else weight.grad.clone() for weight in model.parameters()]


def perturbed_gradients(model, along, window, rho):
    saved = [weight.detach().clone() for weight in model.parameters()]
    norm = torch.sqrt(sum((g**2).sum() for g in along if g is not None))
    with torch.no_grad():
        for weight, g in zip(model.parameters(), along, strict=True):
            if g is not None:
                weight.add_(rho * g / (norm + 1e-12))
    result = gradients(model, window)
    with torch.no_grad():
        for weight, old in zip(model.parameters(), saved, strict=True):
            weight.copy_(old)
    return result


def step(model, optimizer, own):
    for weight, g in zip(model.parameters(), own, strict=True):
        weight.grad = g
    optimizer.step()


def after_a_trial(model, optimizer, along, window):
    """The gradient at the lookahead weights; the model and the optimizer are as they were."""
    weights = [weight.detach().clone() for weight in model.parameters()]
    trial = torch.optim.AdamW(model.parameters())
    trial.load_state_dict(optimizer.state_dict())
    for weight, state in list(trial.state.items()):
        trial.state[weight] = {name: value.clone() for name, value in state.items()}
    step(model, trial, [None if g is None else g.clone() for g in along])
    result = gradients(model, window)
    with torch.no_grad():
        for weight, old in zip(model.parameters(), weights, strict=True):
            weight.copy_(old)
    return result


def mixed(p, h, lam):
    both = []
    for left, right in zip(p, h, strict=True):
        if left is None and right is None:
            both.append(None)
        else:
            left = torch.zeros_like(right) if left is None else left
            both.append((1 - lam) * left + lam * (torch.zeros_like(left) if right is None else right))
    return both


def reference(model, windows, name, rho=0.1, lam=0.1, lr=0.01, missing_is_zero=False):
    """
    SAM and SAMPa once more, by torch.optim.AdamW without decay or schedule. A missing gradient moves nothing; with
    `missing_is_zero` it is a gradient of zero to the trial step, in which momentum goes on.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.0)
    if name == "sam":
        for window in windows[:-1]:
            step(model, optimizer, perturbed_gradients(model, gradients(model, window), window, rho))
        return
    h = gradients(model, windows[0])
    for window, upcoming in pairwise(windows):
        p = perturbed_gradients(model, h, window, rho)
        if missing_is_zero:
            h = [torch.zeros_like(w) if g is None else g for w, g in zip(model.parameters(), h, strict=True)]
        h = after_a_trial(model, optimizer, h, upcoming)
        step(model, optimizer, mixed(p, h, lam))
