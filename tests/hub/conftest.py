"""The local Hub and the trainings that push to it. They are started once, and at once, since some only wait."""

import pytest
import transformers
from packaging.version import Version

from .launch import Launched, launch
from .server import Fault, LocalHub


ALICE, CAROL, WRONG = "hf_of_alice_JkQ7vY2m", "hf_of_carol_8sTzW4nB", "hf_of_nobody_c5XrE1pL"
#: By the variable that carries them to the workers.
TOKENS = {"TOKEN_OF_ALICE": ALICE, "TOKEN_OF_CAROL": CAROL, "WRONG_TOKEN": WRONG}

#: Older hosts cannot load an optimizer on several ranks without an accelerator: "cpu:0" is no place for a tensor.
HOST_RESUMES = Version(transformers.__version__) >= Version("5.23")

SAM = {"method": "sam"}
SAMPA = {"method": "sampa", "sampa_lambda": 0.2}


def entry(name: str, repo_id: str, strategy: str, token: str | None = None, sam: dict = SAM, **arguments) -> dict:
    pushing = {"push_to_hub": True, "hub_model_id": repo_id, "hub_strategy": strategy, "hub_always_push": True}
    return {"name": name, "sam": sam, "token": token, "arguments": pushing | arguments}


@pytest.fixture(scope="session")
def hub():
    server = LocalHub(
        users={ALICE: "alice", CAROL: "carol"},
        organizations={"alice": ["small"]},
        quota={"small": 1000},
    )
    with server:
        server.add_repository("bob/public")
        yield server


@pytest.fixture(scope="session")
def lonely(hub, tmp_path_factory):
    """One process: a connection that breaks in the middle of a large file, once and always; a token that is late."""
    hub.faults += [Fault("alice/shaky", "lfs_upload", None, times=1), Fault("alice/broken", "lfs_upload", None)]
    entries = [
        entry("shaky", "alice/shaky", "end", token="TOKEN_OF_ALICE", push_to_hub=False),
        entry("late", "alice/late", "every_save") | {"log_in_with": "TOKEN_OF_ALICE"},
        entry("broken", "alice/broken", "end", token="TOKEN_OF_ALICE"),
    ]
    launched = launch(hub, tmp_path_factory.mktemp("lonely") / "run", 1, entries, TOKENS)
    yield launched
    launched.process.kill()


@pytest.fixture(scope="session")
def published(hub, lonely, tmp_path_factory) -> Launched:
    """Two ranks push SAM with every checkpoint, and SAMPa with the last one."""
    entries = [
        entry("sam", "alice/sam", "all_checkpoints", sam=SAM, hub_token="TOKEN_OF_ALICE"),
        entry("sampa", "alice/sampa", "checkpoint", sam=SAMPA, token="TOKEN_OF_ALICE"),
    ]
    return launch(hub, tmp_path_factory.mktemp("published") / "run", 2, entries, TOKENS).wait()


def continuation(name: str, step: int, checkpoint: str) -> dict:
    """Load the model of a published run, and go on from a checkpoint as it was on the Hub after `step`."""
    title = f"Training in progress, step {step}, checkpoint"
    source = {"repo_id": f"alice/{name}", "commit_title": title, "checkpoint": checkpoint}
    again = {"name": f"{name}-again", "load": f"alice/{name}", "arguments": {}}
    return again | {"resume_from": source} if HOST_RESUMES else again


@pytest.fixture(scope="session")
def later(hub, published, tmp_path_factory) -> Launched:
    """Two new ranks: first they go on with what was published, then everything goes wrong that can."""
    hub.faults += [Fault("alice/error", "commit", 500), Fault("alice/dropped", "commit", None)]
    entries = [
        continuation("sam", 2, "checkpoint-2"),
        continuation("sampa", 4, "last-checkpoint"),
        entry("no-token", "alice/no-token", "every_save"),
        entry("wrong-token", "alice/wrong-token", "end", token="WRONG_TOKEN"),
        entry("no-right", "bob/new", "checkpoint", hub_token="TOKEN_OF_CAROL"),
        entry("no-right-to-push", "bob/public", "every_save", token="TOKEN_OF_CAROL"),
        entry("quota", "small/model", "checkpoint", sam=SAMPA, hub_token="TOKEN_OF_ALICE"),
        entry("error", "alice/error", "all_checkpoints", token="TOKEN_OF_ALICE"),
        entry("dropped", "alice/dropped", "every_save", token="TOKEN_OF_ALICE"),
    ]
    return launch(hub, tmp_path_factory.mktemp("later") / "run", 2, entries, TOKENS).wait()
