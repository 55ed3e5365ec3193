"""Push from two ranks, load in new processes, go on from a pulled checkpoint: the bits are the same."""

import pytest

from hf_sam import SAMConfig

from .conftest import HOST_RESUMES


WHAT_IS_PUSHED = {
    ".gitattributes",
    "README.md",
    "config.json",
    "model.safetensors",
    "sam_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "trainer_state.json",
    "training_args.bin",
}
WHAT_RESUMING_NEEDS = {
    "model.safetensors",
    "optimizer.pt",
    "scheduler.pt",
    "trainer_state.json",
    "rng_state_0.pth",
    "rng_state_1.pth",
}


@pytest.mark.parametrize("name", ["sam", "sampa"])
def test_loaded_weights_are_those_that_were_trained(published, later, name):
    trained = {result["weights"] for result in published.results(name)}
    loaded = {result["loaded"] for result in later.results(f"{name}-again")}
    assert loaded == trained
    assert len(trained) == 1, "the ranks differ"


@pytest.mark.skipif(not HOST_RESUMES, reason="the stock Trainer of 5.4 cannot resume on several ranks without GPUs")
@pytest.mark.parametrize("name", ["sam", "sampa"])
def test_run_resumed_from_the_hub_equals_the_uninterrupted_one(published, later, name):
    for uninterrupted, resumed in zip(published.results(name), later.results(f"{name}-again"), strict=True):
        assert resumed["steps"] == uninterrupted["steps"] == 6
        assert resumed["weights"] == uninterrupted["weights"]


@pytest.mark.parametrize("name", ["sam", "sampa"])
def test_root_of_the_repository_has_model_card_and_log(hub, published, name):
    files = hub.repository(f"alice/{name}").commit_at("main").files
    assert {path for path in files if "/" not in path} == WHAT_IS_PUSHED
    for path in ("model.safetensors", "README.md", "trainer_state.json", "sam_config.json"):
        assert files[path].content == (published.folder / name / path).read_bytes()
    assert SAMConfig.from_pretrained(published.folder / name).method == name


def test_every_checkpoint_is_complete(hub, published):
    files = hub.repository("alice/sam").commit_at("main").files
    for step in (2, 4, 6):
        inside = {path.split("/")[1] for path in files if path.startswith(f"checkpoint-{step}/")}
        assert inside >= WHAT_RESUMING_NEEDS
    files = hub.repository("alice/sampa").commit_at("main").files
    inside = {path.split("/")[1] for path in files if path.startswith("last-checkpoint/")}
    assert WHAT_RESUMING_NEEDS | {"sam_state.safetensors"} <= inside


@pytest.mark.parametrize("name", ["sam", "sampa"])
def test_weights_of_every_push_are_those_of_its_checkpoint(hub, published, name):
    """No push happens at perturbed weights, and none mixes two steps."""
    repository = hub.repository(f"alice/{name}")
    by_title = {commit.summary: commit.files["model.safetensors"].sha256 for commit in repository.history()[:-1]}
    checkpoints = {"sam": "checkpoint-{}", "sampa": "last-checkpoint"}
    for step in (2, 4, 6):
        title = f"Training in progress, step {step}"
        commit = next(c for c in repository.history() if c.summary == f"{title}, checkpoint")
        path = f"{checkpoints[name].format(step)}/model.safetensors"
        assert by_title[title] == commit.files[path].sha256
    assert len(set(by_title.values())) == 3
    assert by_title["End of training"] == by_title["Training in progress, step 6"]


@pytest.mark.parametrize("name", ["sam", "sampa"])
def test_exactly_one_rank_pushes(hub, published, name):
    titles = [commit.summary for commit in reversed(hub.repository(f"alice/{name}").history())]
    in_progress = [f"Training in progress, step {step}" for step in (2, 4, 6)]
    expected = [title for step in in_progress for title in (step, f"{step}, checkpoint")]
    assert titles == ["initial commit", *expected, "End of training"]
    first, second = published.results(name)
    assert first["answer"].startswith(f"{hub.endpoint}/alice/{name}/commit/")
    assert second["answer"] is None


def test_one_process_pushes_on_demand_and_survives_a_break_in_a_large_file(hub, lonely):
    lonely.wait()
    files = hub.repository("alice/shaky").commit_at("main").files
    assert set(files) == WHAT_IS_PUSHED
    assert files["model.safetensors"].content == (lonely.folder / "shaky" / "model.safetensors").read_bytes()
    assert "Not pushed" not in lonely.log(0, "shaky")
