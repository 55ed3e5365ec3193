"""SAM and SAMPa once more, around any host and without hf_sam: by what `compute_loss` returns, and by a plain loop.

Both know windows of one micro-batch.
"""

import copy
from itertools import pairwise
from typing import Any

import torch


# What hosts collect for their logs.
COLLECTED = ("_metrics", "_total_train_tokens", "accum_loss_components", "_entropy_window_stats")


def weights_of(optimizer) -> list[torch.Tensor]:
    return [weight for group in optimizer.param_groups for weight in group["params"] if weight.requires_grad]


def gradients_of(loss, weights):
    """One for each weight; zero for one that is not used."""
    found = torch.autograd.grad(loss, weights, allow_unused=True)
    return [torch.zeros_like(weight) if one is None else one for weight, one in zip(weights, found, strict=True)]


def displaced(weights, along, rho):
    norm = torch.cat([one.reshape(-1) for one in along]).double().norm()
    with torch.no_grad():
        for weight, one in zip(weights, along, strict=True):
            weight.add_(one, alpha=float(rho / (norm + 1e-12)))


def put_back(weights, saved):
    with torch.no_grad():
        for weight, old in zip(weights, saved, strict=True):
            weight.copy_(old)


class TwoPass:
    """Over a host: its loss has the value at the weights, and the gradient at the perturbed ones, which is SAM."""

    rho = 0.05

    def compute_loss(self, model, inputs, *args, **kwargs):
        if not self.model.training:
            return super().compute_loss(model, inputs, *args, **kwargs)
        again = copy.copy(inputs)
        weights = weights_of(self.optimizer)
        saved = [weight.detach().clone() for weight in weights]
        with self.accelerator.no_sync(model):
            loss = super().compute_loss(model, inputs, *args, **kwargs)
            ascent = gradients_of(loss, weights)
        collected = {name: copy.deepcopy(getattr(self, name)) for name in COLLECTED if hasattr(self, name)}
        displaced(weights, ascent, self.rho)
        perturbed = super().compute_loss(model, again, *args, **kwargs)
        descent = torch.autograd.grad(perturbed, weights, allow_unused=True)
        put_back(weights, saved)
        vars(self).update(collected)
        # Its derivative with respect to a weight is the weight's gradient, which DDP averages as any other.
        # One that is not used is left to DDP.
        used = [pair for pair in zip(weights, descent, strict=True) if pair[1] is not None]
        slope = sum((weight * one).sum() for weight, one in used)
        return loss.detach() + slope - slope.detach()


def train_sampa(trainer: Any, rho: float, lam: float) -> None:
    """SAMPa-λ with plain SGD steps and `w - η h` as lookahead, over the batches of `trainer`, a host as it is."""
    trainer.create_optimizer()
    weights, rate = weights_of(trainer.optimizer), trainer.args.learning_rate
    loader = trainer.get_train_dataloader()
    batches = []
    for epoch in range(int(trainer.args.num_train_epochs)):
        loader.set_epoch(epoch)
        batches += list(loader)
    updates = len(batches)
    loader.set_epoch(epoch + 1)
    batches.append(next(iter(loader)))

    def gradient(batch):
        trainer.model.train()
        prepared = trainer._prepare_inputs(copy.copy(batch))
        _, items = trainer.get_batch_samples(iter([batch]), 1, trainer.args.device)
        return gradients_of(trainer.compute_loss(trainer.model, prepared, num_items_in_batch=items), weights)

    lookahead = gradient(batches[0])
    for window, upcoming in pairwise(batches):
        saved = [weight.detach().clone() for weight in weights]
        displaced(weights, lookahead, rho)
        perturbed = gradient(window)
        put_back(weights, saved)
        with torch.no_grad():
            for weight, one in zip(weights, lookahead, strict=True):
                weight.sub_(one, alpha=rate)
        lookahead = gradient(upcoming)
        put_back(weights, saved)
        with torch.no_grad():
            for weight, p, h in zip(weights, perturbed, lookahead, strict=True):
                weight.sub_((1 - lam) * p + lam * h, alpha=rate)
    trainer.state.global_step = updates
