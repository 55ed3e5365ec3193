"""Tiny runs on ranks whose stream of data can be read once only, so that it really ends."""

from tests import harness
from tests.harness import Run
from tests.host.trainers import Stream


def train(run, folder):
    trainer = harness.make_trainer(run, folder)
    trainer.train_dataset = Stream(trainer.train_dataset.rows, passes=1)
    trainer.train()
    return {"weights": harness.weights_of(trainer.model), "step": trainer.state.global_step}


__all__ = ["Run", "train"]
