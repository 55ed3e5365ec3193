"""Saving that does not come to its end: the error says so, and every earlier checkpoint is as it was."""

import errno
import json
import os
import resource
from contextlib import contextmanager

import pytest
import torch
from transformers import Trainer
from transformers.trainer_callback import TrainerState

from hf_sam.checkpoints import manifest
from hf_sam.checkpoints.manifest import MANIFEST_NAME, why_not_whole
from hf_sam.hub import HubMixin
from tests import harness


SAVING = {"save_strategy": "steps", "save_steps": 2, "max_steps": 6}


def make_run(**arguments):
    return harness.Run(method="sampa", arguments=SAVING | arguments)


def checkpoints_in(folder):
    return sorted(path.name for path in folder.glob("checkpoint-*"))


def train_with(monkeypatch, folder, owner, name, fails, run=None):
    """Train until the second call of `owner.name`, which is `fails(original, *arguments)`."""
    original, calls = getattr(owner, name), []

    def wrapped(*args, **kwargs):
        calls.append(name)
        return fails(original, *args, **kwargs) if len(calls) == 2 else original(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, wrapped)
        return harness.train(run or make_run(), folder)


@contextmanager
def files_of_at_most(size):
    """A limit that the system sets: what is written beyond it fails in the middle of a file, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def limited(original, *args, **kwargs):
    with files_of_at_most(500):
        return original(*args, **kwargs)


PLACES = {
    "weights": (Trainer, "_save"),
    "optimizer": (Trainer, "_save_optimizer_and_scheduler"),
    "random state": (Trainer, "_save_rng_state"),
    "trainer state": (TrainerState, "save_to_json"),
    "manifest": (manifest, "finish"),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_disk_that_is_full_in_the_middle_of_a_file(place, tmp_path, monkeypatch):
    with pytest.raises(OSError, match=r"checkpoint-4 could not be written .* MiB are free") as error:
        train_with(monkeypatch, tmp_path, *PLACES[place], limited)
    assert "Earlier checkpoints are as they were" in str(error.value)
    assert why_not_whole(tmp_path / "checkpoint-2") is None
    assert "cut off" in why_not_whole(tmp_path / "checkpoint-4")

    resumed = harness.train(harness.Run(method="sampa", arguments=SAVING, resume_from="auto"), tmp_path)
    whole_run = harness.train(make_run(), tmp_path / "whole")
    assert harness.same_bits(resumed["weights"], whole_run["weights"])
    assert harness.same_bits(resumed["optimizer"], whole_run["optimizer"])
    assert why_not_whole(tmp_path / "checkpoint-4") is why_not_whole(tmp_path / "checkpoint-6") is None


def test_older_checkpoints_stay_until_the_new_one_is_whole(tmp_path, monkeypatch):
    def fail(original, *args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match="No space left on device"):
        train_with(monkeypatch, tmp_path, manifest, "finish", fail, make_run(save_total_limit=1))
    assert checkpoints_in(tmp_path) == ["checkpoint-2", "checkpoint-4"]
    assert why_not_whole(tmp_path / "checkpoint-2") is None
    harness.train(make_run(save_total_limit=1), tmp_path)
    assert checkpoints_in(tmp_path) == ["checkpoint-6"]


def test_what_was_cut_off_counts_for_nothing_among_those_that_are_kept(tmp_path):
    manifest.begin(tmp_path / "checkpoint-100")
    harness.train(make_run(save_total_limit=2), tmp_path)
    assert checkpoints_in(tmp_path) == ["checkpoint-4", "checkpoint-6"]


def test_the_limit_is_what_the_user_set_in_the_arguments_that_are_saved(tmp_path):
    trainer = harness.make_trainer(make_run(save_total_limit=2), tmp_path)
    trainer.train()
    saved = torch.load(tmp_path / "checkpoint-6/training_args.bin", weights_only=False)
    assert saved.save_total_limit == trainer.args.save_total_limit == 2


def test_the_best_one_is_kept_and_loaded(tmp_path):
    arguments = {"save_total_limit": 1, "eval_strategy": "steps", "eval_steps": 2, "load_best_model_at_end": True}
    trainer = harness.make_trainer(make_run(learning_rate=0.5, **arguments), tmp_path)
    trainer.train()
    best = trainer.state.best_model_checkpoint
    assert os.path.basename(best) in checkpoints_in(tmp_path)
    assert why_not_whole(best) is None


def test_a_checkpoint_is_pushed_when_it_is_whole_and_before_older_ones_go(tmp_path, monkeypatch):
    pushed = []

    def note(self, folder):
        pushed.append((os.path.basename(folder), why_not_whole(folder), checkpoints_in(tmp_path)))

    trainer = harness.make_trainer(make_run(save_total_limit=1), tmp_path)
    trainer.args.push_to_hub = True
    monkeypatch.setattr(HubMixin, "_push_from_checkpoint", note)
    trainer.train()
    assert pushed == [
        ("checkpoint-2", None, ["checkpoint-2"]),
        ("checkpoint-4", None, ["checkpoint-2", "checkpoint-4"]),
        ("checkpoint-6", None, ["checkpoint-4", "checkpoint-6"]),
    ]


def test_the_state_of_a_method_that_is_gone_does_not_stay_in_a_folder_that_is_used_again(tmp_path):
    harness.train(make_run(), tmp_path)
    harness.train(harness.Run(method="sam", arguments=SAVING), tmp_path)
    assert not (tmp_path / "checkpoint-4/sam_state.safetensors").exists()
    assert "sam_state.safetensors" not in json.loads((tmp_path / "checkpoint-4" / MANIFEST_NAME).read_text())["files"]
    assert why_not_whole(tmp_path / "checkpoint-4") is None
