"""Ctrl-C at random moments of an update, in one process: does everything that is moved for a while come back?"""

import logging
import random
import signal
import tempfile
import time
from pathlib import Path

import torch
from torch import nn
from transformers import PrinterCallback, TrainerCallback, TrainingArguments

from hf_sam import SAMConfig, SAMTrainer
from hf_sam.restore import all_brought_back
from hf_sam.rng import RandomState


METHODS = {
    "sam": SAMConfig(method="sam", rho=0.1),
    "sam, micro-batches": SAMConfig(method="sam", rho=0.1, ascent_scope="micro_batch"),
    "sampa": SAMConfig(method="sampa", rho=0.1),
}


class SmallNet(nn.Module):
    """x (batch, 6) -> 2 classes, with dropout and BatchNorm."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.Linear(8, 2))

    def forward(self, x, labels=None):
        return {"loss": nn.functional.cross_entropy(self.layers(x), labels)}


def interrupt_for(seconds: float, seed: int) -> dict[str, dict[str, int]]:
    """Method -> how often an update was interrupted, and how often something had not come back."""
    logging.disable(logging.CRITICAL)
    signal.signal(signal.SIGALRM, press)
    counts = {}
    with tempfile.TemporaryDirectory() as folder:
        for method, config in METHODS.items():
            callback = InterruptUpdates(random.Random(seed), seconds / len(METHODS))
            make_trainer(config, Path(folder), callback).train()
            counts[method] = callback.counts
    return counts


def press(*_) -> None:
    raise KeyboardInterrupt


class InterruptUpdates(TrainerCallback):
    """In the place of update 2, does the same update again and again, each time interrupted at another moment."""

    def __init__(self, generator: random.Random, seconds: float):
        self.generator, self.seconds = generator, seconds
        self.counts = dict.fromkeys(
            ("interrupts", "just after it", "weights moved", "BatchNorm off", "random streams moved"), 0
        )

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        if state.global_step != 2:
            return
        inputs = self.trainer.train_dataset[:4]
        batch = {name: torch.stack([row[name] for row in inputs]) for name in inputs[0]}
        began = time.monotonic()
        self.trainer.training_step(model, dict(batch))
        longest = time.monotonic() - began
        while time.monotonic() - began < self.seconds:
            model.zero_grad()
            self._interrupt_once(model, batch, self.generator.uniform(1e-6, longest))
        model.zero_grad()
        self.trainer.sam_method.reset()

    def _interrupt_once(self, model: nn.Module, batch: dict, after: float) -> None:
        weights = list(model.parameters())
        before = [weight.detach().clone() for weight in weights]
        streams = RandomState.capture(torch.device("cpu"))
        try:
            signal.setitimer(signal.ITIMER_REAL, after)
            # What surrounds an update in the loop of training.
            with all_brought_back():
                self.trainer.training_step(model, dict(batch))
                signal.setitimer(signal.ITIMER_REAL, 0)
                return
        except KeyboardInterrupt:
            pass
        self.trainer.sam_method.reset()
        counts = self.counts
        counts["interrupts"] += 1
        counts["weights moved"] += any(not torch.equal(a, b) for a, b in zip(before, weights, strict=True))
        counts["BatchNorm off"] += not model.layers[1].track_running_stats
        # The gradient of an update that came to its end is the loop's to drop, with the stream where it belongs.
        ended = any(weight.grad is not None for weight in weights)
        counts["just after it"] += ended
        counts["random streams moved"] += not ended and not torch.equal(streams.torch, torch.get_rng_state())
        model.layers[1].track_running_stats = True
        with torch.no_grad():
            torch._foreach_copy_(weights, before)


def make_trainer(config: SAMConfig, folder: Path, callback: InterruptUpdates) -> SAMTrainer:
    torch.manual_seed(0)
    data = [{"x": torch.randn(6), "labels": torch.tensor(row % 2)} for row in range(64)]
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=4,
        per_device_train_batch_size=4,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    trainer = SAMTrainer(SmallNet(), arguments, train_dataset=data, callbacks=[callback], sam_config=config)
    trainer.remove_callback(PrinterCallback)
    callback.trainer = trainer
    return trainer
