"""When a push fails, training ends as it would have, nothing is lost, and the user learns how to push later."""

import pickle
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import TrainingArguments

from hf_sam import SAMTrainer
from hf_sam.hub import SecretToken

from .conftest import ALICE, TOKENS
from .launch import client_environment


FAILURES = {
    # name of the run: (repository, reason, what is missing)
    "no-token": ("alice/no-token", "no token was found", "the model"),
    "wrong-token": ("alice/wrong-token", "401, the Hub does not accept the token", "the model"),
    "no-right": ("bob/new", "403, the token has no right to write there", "the model, last-checkpoint"),
    "no-right-to-push": ("bob/public", "403, the token has no right to write there", "the model"),
    "quota": ("small/model", "413, the storage quota is full, or a file is too large", "the model, last-checkpoint"),
    "error": ("alice/error", "500, the Hub failed", "the model, checkpoint-2, checkpoint-4, checkpoint-6"),
    "dropped": ("alice/dropped", "the connection failed", "the model"),
}


@pytest.fixture
def weights_without_a_push(published) -> str:
    """SAM trains to the same weights in every run here, pushed or not."""
    return published.results("sam")[0]["weights"]


@pytest.mark.parametrize("name", [name for name in FAILURES if name != "quota"])
def test_training_ends_as_if_the_push_had_worked(later, weights_without_a_push, name):
    for result in later.results(name):
        assert result["steps"] == 6
        assert result["weights"] == weights_without_a_push
        assert result["answer"] is None


@pytest.mark.parametrize("name", FAILURES)
def test_nothing_local_is_lost(later, published, name):
    reference = "sampa" if name == "quota" else "sam"
    for path in ("model.safetensors", *(f"checkpoint-{step}/model.safetensors" for step in (2, 4, 6))):
        assert (later.folder / name / path).read_bytes() == (published.folder / reference / path).read_bytes()
    for path in ("README.md", "sam_config.json", "trainer_state.json", "tokenizer.json"):
        assert (later.folder / name / path).stat().st_size > 0


@pytest.mark.parametrize("name", FAILURES)
def test_one_message_on_one_rank_says_what_is_missing_and_why(later, name):
    repository, reason, missing = FAILURES[name]
    log = later.log(0, name)
    last = [line for line in log.splitlines() if line.startswith(f"Not pushed to {repository} on the Hub: ")][-1]
    assert last.startswith(f"Not pushed to {repository} on the Hub: {missing}. The reason: {reason}")
    assert f"Nothing is lost: everything is in {later.folder / name}" in log
    assert len(re.findall(re.escape(last), log)) == 1
    assert "Traceback" not in log
    assert "pushed to" not in later.log(1, name)


def test_repository_that_cannot_be_created_is_reported_before_training(later):
    for name in ("no-token", "wrong-token", "no-right"):
        warning, message = later.log(0, name).index("Cannot push to"), later.log(0, name).index("Not pushed to")
        assert warning < message


def test_message_says_which_token_the_command_needs(hub, later):
    assert "Log in first, with `hf auth login` or HF_TOKEN. To push it later" in later.log(0, "no-token")
    assert f"A token that may write comes from {hub.endpoint}/settings/tokens" in later.log(0, "no-right")
    assert "with `hf auth login` and the token that you gave to the Trainer. To push it later" in later.log(0, "quota")
    assert "hf auth login" not in later.log(0, "dropped")


def test_large_file_whose_connection_breaks_every_time(hub, lonely):
    lonely.wait()
    (result,) = lonely.results("broken")
    assert result["steps"] == 6
    assert result["answer"] is None
    message = (
        "Not pushed to alice/broken on the Hub: the model. The reason: the connection failed (RemoteProtocolError"
    )
    assert message in lonely.log(0, "broken")
    assert [commit.summary for commit in hub.repository("alice/broken").history()] == ["initial commit"]


def test_token_that_comes_late_is_used(hub, lonely):
    lonely.wait()
    titles = [commit.summary for commit in reversed(hub.repository("alice/late").history())]
    steps = [f"Training in progress, step {step}" for step in (4, 6)]
    assert titles == ["initial commit", *steps, "End of training"]
    log = lonely.log(0, "late")
    assert log.index("Cannot push to alice/late") < log.index("Pushing to alice/late works again: nothing is missing")
    assert "Not pushed" not in log


@pytest.mark.parametrize(
    ("options", "named"),
    [({"hub_model_id": "alice/my model"}, "hub_model_id='alice/my model'"), ({}, r"output_dir='[^']*/my run'")],
)
def test_name_that_is_not_allowed_raises_before_training(options, named, tmp_path):
    args = TrainingArguments(output_dir=str(tmp_path / "my run"), push_to_hub=True, use_cpu=True, **options)
    with pytest.raises(ValueError, match=f"TrainingArguments.{named} with push_to_hub: .* Set hub_model_id to"):
        SAMTrainer(torch.nn.Linear(1, 1), args)


def test_printed_commands_push_what_was_missing(hub, later, tmp_path):
    commands = re.findall(r"^    (hf upload small/model .*)$", later.log(0, "quota"), flags=re.MULTILINE)[-2:]
    assert len(commands) == 2
    assert set(hub.repository("small/model").commit_at("main").files) == {".gitattributes"}
    hub.quota["small"] = 10**9
    environment = client_environment(hub, tmp_path, {"HF_TOKEN": ALICE})
    for command in commands:
        program, *arguments = shlex.split(command)
        done = subprocess.run(
            [str(Path(sys.executable).with_name(program)), *arguments],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    files = hub.repository("small/model").commit_at("main").files
    local = later.folder / "quota"
    assert files["model.safetensors"].content == (local / "model.safetensors").read_bytes()
    assert {path.split("/")[0] for path in files if "/" in path} == {"last-checkpoint"}
    for path in (path for path in files if path.startswith("last-checkpoint/")):
        assert files[path].content == (local / path.replace("last-checkpoint", "checkpoint-6")).read_bytes()


def test_no_token_is_in_any_output(hub, published, later, lonely, tmp_path):
    lonely.wait()
    held = {
        str(path): path.read_bytes()
        for run in (published, later, lonely)
        for path in run.folder.rglob("*")
        if path.is_file()
    }
    for repository in hub.repositories.values():
        for commit in repository.commits.values():
            held |= {f"{repository.repo_id}@{commit.oid}/{path}": f.content for path, f in commit.files.items()}
    assert sum(path.endswith("training_args.bin") for path in held) > 20
    leaks = [(path, name) for path, content in held.items() for name, t in TOKENS.items() if t.encode() in content]
    assert leaks == []

    # The host alone does leak it: this search would have found it.
    torch.save(TrainingArguments(output_dir=str(tmp_path), hub_token=ALICE, use_cpu=True), tmp_path / "stock.bin")
    assert ALICE.encode() in (tmp_path / "stock.bin").read_bytes()


def test_arguments_without_the_token_are_those_of_the_host(published):
    args = torch.load(published.folder / "sam" / "training_args.bin", weights_only=False)
    assert type(args) is TrainingArguments
    assert args.hub_token is None
    assert args.hub_model_id == "alice/sam"


def test_secret_token_works_as_the_string_it_is():
    token = SecretToken(ALICE)
    assert f"Bearer {token}" == f"Bearer {ALICE}"
    assert pickle.loads(pickle.dumps({"token": token})) == {"token": None}
    assert ALICE not in repr([token])
