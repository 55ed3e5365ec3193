"""Ctrl-C at every point of an update: everything that is moved for a while comes back."""

import contextlib
import signal
import sys
from pathlib import Path

import pytest
import torch
from torch.autograd import grad_mode

import hf_sam
from hf_sam.restore import all_brought_back, brought_back
from hf_sam.rng import RandomState
from tests import harness


METHODS = {
    "sam": {},
    "sam, micro-batches": {"config": {"ascent_scope": "micro_batch"}},
    "sam, other masks": {"config": {"same_dropout_mask": False}},
    "sampa": {"method": "sampa"},
}
TRACED = (str(Path(hf_sam.__file__).parent), contextlib.__file__, grad_mode.__file__)
# Of the places at which one can interrupt an update, each so-many-th; a prime, so that loops do not hide any.
STRIDE = 29


class InterruptAt:
    """Raises `KeyboardInterrupt` at the n-th instruction of this library and of what enters and leaves its blocks."""

    def __init__(self, instruction: int):
        self.left = instruction

    def __call__(self, frame, event, argument):
        if not frame.f_code.co_filename.startswith(TRACED):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
        return self

    def __enter__(self):
        sys.settrace(self)

    def __exit__(self, *_):
        sys.settrace(None)


class InterruptAnUpdate(harness.TrainerCallback):
    """In the place of update 2, does it again and again, interrupted at one point after the other."""

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        if state.global_step != 2:
            return
        self.model, self.problems, self.interrupts = model, [], 0
        rows = self.trainer.train_dataset[:4]
        self.batch = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
        instruction, interrupted = 1, True
        while interrupted:
            interrupted = self.interrupt_at(instruction)
            instruction += STRIDE
        model.zero_grad()

    def interrupt_at(self, instruction: int) -> bool:
        weights = harness.weights_of(self.model)
        streams = RandomState.capture(torch.device("cpu"))
        try:
            # What surrounds an update in the loop of training.
            with all_brought_back(), InterruptAt(instruction):
                self.trainer.training_step(self.model, dict(self.batch))
            return False
        except KeyboardInterrupt:
            self.interrupts += 1
        ended = any(weight.grad is not None for weight in self.model.parameters())
        self.model.zero_grad()
        self.trainer.sam_method.reset()
        found = {
            "weights": all(torch.equal(weights[n], v) for n, v in self.model.named_parameters()),
            "statistics on": self.model.norm.track_running_stats,
            "autograd on": torch.is_grad_enabled(),
            "streams": ended or torch.equal(streams.torch, torch.get_rng_state()),
            "accelerator": self.trainer.accelerator is self.accelerator,
        }
        self.problems += [(instruction, name) for name, holds in found.items() if not holds]
        torch.set_grad_enabled(True)
        return True


@pytest.mark.parametrize("name", METHODS)
def test_wherever_an_update_is_interrupted_all_comes_back(name, tmp_path):
    callback = InterruptAnUpdate()
    run = harness.Run(**METHODS[name], model={"batch_norm": True, "dropout": 0.2}, arguments={"max_steps": 3})
    trainer = harness.make_trainer(run, tmp_path, [callback])
    callback.trainer, callback.accelerator = trainer, trainer.accelerator
    trainer.train()
    assert callback.interrupts > 50
    assert callback.problems == []


@pytest.mark.parametrize("method", ["sam", "sampa"])
def test_after_a_real_interrupt_the_trainer_trains_on_as_if_new(method, tmp_path):
    def interrupt(module, inputs):
        if module.passes == 7:
            signal.raise_signal(signal.SIGINT)

    run = harness.Run(method=method, model={"dropout": 0.2})
    trainer = harness.make_trainer(run, tmp_path / "interrupted")
    start = harness.weights_of(trainer.model)
    handle = trainer.model.register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert all(weight.grad is None for weight in trainer.model.parameters())
    handle.remove()
    trainer.model.load_state_dict(start)
    trainer.optimizer = trainer.lr_scheduler = None
    torch.manual_seed(5)
    trainer.train()

    other = harness.make_trainer(run, tmp_path / "other")
    torch.manual_seed(5)
    other.train()
    assert harness.same_bits(harness.weights_of(trainer.model), harness.weights_of(other.model))


def test_a_block_that_python_closes_late_undoes_nothing_any_more():
    value = {"at": 1}

    def leave_it():
        block = brought_back(lambda: value.update(at=1))
        block.__enter__()
        value["at"] = 2
        return block

    with all_brought_back():
        abandoned = leave_it()
    assert value["at"] == 1
    value["at"] = 3
    with brought_back(lambda: None):
        del abandoned
    assert value["at"] == 3
