"""What does not fit is said before a run goes on otherwise than it would have: one error, or one warning."""

import json
import logging

import pytest
import safetensors.torch
import torch

from hf_sam.checkpoints.manifest import MANIFEST_NAME
from tests import harness


SAVING = {"save_strategy": "steps", "save_steps": 2, "max_steps": 6, "num_train_epochs": 1}
STATE = "sam_state.safetensors"


@pytest.fixture
def checkpoint(tmp_path):
    """Checkpoint 4 of SAMPa, as 0.1 wrote it: without a manifest, so that each file is judged by itself."""
    harness.train(harness.Run(method="sampa", arguments=SAVING), tmp_path / "whole")
    (tmp_path / "whole/checkpoint-4" / MANIFEST_NAME).unlink()
    return tmp_path / "whole/checkpoint-4"


def resume(checkpoint, **options):
    run = harness.Run(**{"method": "sampa", "arguments": SAVING, "resume_from": str(checkpoint)} | options)
    return harness.train(run, checkpoint.parent.parent / "resumed")


def warnings_of(caplog):
    return [record.getMessage() for record in caplog.records if record.name.startswith("hf_sam")]


def change_state(checkpoint, change, metadata=None):
    state = safetensors.torch.load_file(checkpoint / STATE)
    safetensors.torch.save_file(change(state), checkpoint / STATE, metadata=metadata)


CHANGES = {
    "empty": (lambda state: {}, "it holds nothing"),
    "removed": (lambda state: {"inner.weight": state["inner.weight"]}, "it holds nothing for 'inner.bias'"),
    "dtype": (
        lambda state: {name: value.float() for name, value in state.items()},
        r"is in torch.float32, and the weight in torch.float64",
    ),
    "nan": (lambda state: {name: value / 0 * 0 for name, value in state.items()}, "is not finite"),
    "shape": (lambda state: {name: value.reshape(1, -1) for name, value in state.items()}, "same model"),
    "unknown": (lambda state: state | {"other": torch.zeros(1).double()}, "'other'"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_lookahead_gradient_that_does_not_fit_is_an_error(name, checkpoint):
    change, reason = CHANGES[name]
    change_state(checkpoint, change)
    with pytest.raises(ValueError, match=reason) as error:
        resume(checkpoint)
    assert str(checkpoint) in str(error.value)
    assert STATE in str(error.value)


def test_the_file_says_how_many_tensors_it_held(checkpoint):
    change_state(checkpoint, lambda state: {"inner.weight": state["inner.weight"]}, {"tensors": "4"})
    with pytest.raises(ValueError, match="it holds 1 tensors of 4"):
        resume(checkpoint)


def test_a_missing_lookahead_gradient_is_an_error_unless_the_run_was_another_one(checkpoint, caplog):
    (checkpoint / STATE).unlink()
    with pytest.raises(ValueError, match=rf"{STATE} is missing, without which method='sampa' cannot go on"):
        resume(checkpoint)
    (checkpoint / "sam_config.json").unlink()
    caplog.clear()
    resume(checkpoint)
    [warning] = warnings_of(caplog)
    assert f"has no {STATE}" in warning
    caplog.clear()
    resume(checkpoint, method="sam")
    assert warnings_of(caplog) == []


def test_with_a_manifest_any_change_is_an_error_that_names_the_file(checkpoint):
    whole = checkpoint.parent / "checkpoint-2"
    (whole / STATE).unlink()
    with pytest.raises(ValueError, match=rf"checkpoint-2' is not a whole checkpoint: {STATE} is missing"):
        resume(whole)


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_a_file_without_which_a_run_goes_on_otherwise_is_named(name, checkpoint, caplog):
    (checkpoint / name).unlink()
    resume(checkpoint)
    [warning] = warnings_of(caplog)
    assert f"has no {name}:" in warning


def test_all_files_of_a_checkpoint_of_the_model_alone_are_named_at_once(tmp_path, caplog):
    arguments = SAVING | {"save_only_model": True}
    harness.train(harness.Run(method="sampa", arguments=arguments), tmp_path / "whole")
    resume(tmp_path / "whole/checkpoint-4")
    [warning] = warnings_of(caplog)
    assert "has no optimizer.pt, scheduler.pt, rng_state.pth" in warning


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", STATE])
def test_every_error_while_reading_a_file_names_it(name, checkpoint):
    """The file has its length and its place of the end, so that only reading it shows that it is damaged."""
    content = bytearray((checkpoint / name).read_bytes())
    where = content.index(b"data.pkl" if name.endswith(("pt", "pth")) else b'{"') + 12
    content[where : where + 40] = b"\xff" * 40
    (checkpoint / name).write_bytes(content)
    with pytest.raises(ValueError, match=name):
        resume(checkpoint)


def test_the_optimizer_of_another_model_is_named(checkpoint):
    state = torch.load(checkpoint / "optimizer.pt")
    state["param_groups"][0]["params"].append(99)
    torch.save(state, checkpoint / "optimizer.pt")
    with pytest.raises(ValueError, match=r"checkpoint-4: optimizer\.pt or scheduler\.pt cannot be loaded"):
        resume(checkpoint)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", json.dumps({"method": "new"}).encode()])
def test_the_options_which_are_only_compared_never_end_a_resume(content, checkpoint, caplog):
    whole = harness.train(harness.Run(method="sampa", arguments=SAVING), checkpoint.parent.parent / "again")
    (checkpoint / "sam_config.json").write_bytes(content)
    with caplog.at_level(logging.WARNING):
        resumed = resume(checkpoint)
    assert any("cannot be read" in text or "method='sampa'" in text for text in warnings_of(caplog))
    assert harness.same_bits(resumed["weights"], whole["weights"])
