"""The local Hub refuses what the Hub refuses; a test that pushes through it means something."""

import base64
import hashlib
import json

import pytest
import requests

from .card_rules import card_problems
from .server import LocalHub


SESSION = requests.Session()
SESSION.trust_env = False  # no proxy


@pytest.fixture(scope="module")
def server():
    with LocalHub(users={"a": "alice", "b": "bob"}, readers={"r": "alice"}, quota={"bob": 10}) as hub:
        for repo_id in ("alice/open", "bob/open"):
            hub.add_repository(repo_id)
        hub.add_repository("alice/secret", private=True)
        yield hub


def call(server, method: str, path: str, token: str | None = "a", **kwargs) -> requests.Response:
    headers = kwargs.pop("headers", {}) | ({} if token is None else {"Authorization": f"Bearer {token}"})
    return SESSION.request(method, server.endpoint + path, headers=headers, allow_redirects=False, **kwargs)


def send_commit(server, *operations: tuple[str, dict], header: dict | None = None, branch: str = "main"):
    lines = [{"key": "header", "value": header or {"summary": "a commit"}}]
    lines += [{"key": key, "value": value} for key, value in operations]
    data = "\n".join(json.dumps(line) for line in lines)
    return call(server, "POST", f"/api/models/alice/open/commit/{branch}", data=data)


def a_file(path: str, content: bytes = b"text") -> tuple[str, dict]:
    return "file", {"path": path, "content": base64.b64encode(content).decode(), "encoding": "base64"}


@pytest.mark.parametrize(
    ("token", "name", "status"),
    [
        (None, {"name": "new"}, 401),
        ("unknown", {"name": "new"}, 401),
        ("r", {"name": "new"}, 403),
        ("a", {"name": "new", "organization": "bob"}, 403),
        ("a", {"name": "open"}, 409),
        ("a", {"name": "new", "type": "dataset"}, 400),
        ("a", {"name": "new"}, 200),
    ],
)
def test_creation_asks_for_a_token_that_may_write(server, token, name, status):
    assert call(server, "POST", "/api/repos/create", token, json=name).status_code == status


@pytest.mark.parametrize(("token", "status"), [(None, 401), ("b", 404), ("a", 200), ("r", 200)])
def test_private_repository_is_hidden_from_strangers(server, token, status):
    assert call(server, "GET", "/api/models/alice/secret", token).status_code == status


def lfs_batch(server, content: bytes, repo_id: str = "alice/open", token: str = "a") -> requests.Response:
    item = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content)}
    return call(server, "POST", f"/{repo_id}.git/info/lfs/objects/batch", token, json={"objects": [item]})


def test_large_file_must_have_the_promised_bytes(server):
    upload = lfs_batch(server, b"promised").json()["objects"][0]["actions"]["upload"]["href"]
    assert SESSION.put(upload, data=b"promises").status_code == 400
    assert SESSION.put(upload, data=b"promised!").status_code == 400
    assert SESSION.put(upload, data=b"promised", headers={"Authorization": "Bearer a"}).status_code == 400
    oid = hashlib.sha256(b"promised").hexdigest()
    value = {"path": "model.safetensors", "algo": "sha256", "oid": oid, "size": 8}
    assert send_commit(server, ("lfsFile", value)).status_code == 400, "committed before it was uploaded"
    assert SESSION.put(upload, data=b"promised").status_code == 200
    assert SESSION.put(upload, data=b"promised").status_code == 403, "uploaded twice with a one-time address"
    assert send_commit(server, ("lfsFile", value | {"size": 9})).status_code == 400
    assert send_commit(server, ("lfsFile", value)).status_code == 200
    assert "actions" not in lfs_batch(server, b"promised").json()["objects"][0]


def test_quota(server):
    assert lfs_batch(server, b"0123456789", "bob/open", "b").status_code == 200
    assert lfs_batch(server, b"0123456789+", "bob/open", "b").status_code == 413


def test_commit_is_refused_as_a_whole(server):
    head = server.repository("alice/open").branches["main"]
    refused = [
        send_commit(server, a_file("good.txt"), a_file("../bad.txt")),
        send_commit(server, a_file("good.txt"), a_file("model.bin", b"binary")),
        send_commit(server, a_file("good.txt"), ("deletedFile", {"path": "absent.txt"})),
        send_commit(server, a_file("good.txt"), header={"summary": ""}),
        send_commit(server, a_file("good.txt"), header={"summary": "late", "parentCommit": "0" * 40}),
        send_commit(server, a_file("good.txt"), branch="absent"),
    ]
    assert [response.status_code for response in refused] == [400, 400, 404, 400, 412, 404]
    assert server.repository("alice/open").branches["main"] == head


def test_files_are_served_in_ranges_from_storage(server):
    content = bytes(range(200))
    server.repository("alice/open").objects[hashlib.sha256(content).hexdigest()] = content
    value = {"path": "ranges.bin", "algo": "sha256", "oid": hashlib.sha256(content).hexdigest()}
    oid = send_commit(server, ("lfsFile", value)).json()["commitOid"]
    head = call(server, "HEAD", "/alice/open/resolve/main/ranges.bin", token=None)
    assert head.status_code == 302
    assert head.headers["X-Repo-Commit"] == oid
    assert (head.headers["X-Linked-Size"], head.headers["X-Linked-ETag"]) == ("200", f'"{value["oid"]}"')
    part = SESSION.get(head.headers["Location"], headers={"Range": "bytes=50-59"})
    assert (part.status_code, part.content) == (206, content[50:60])
    assert part.headers["Content-Range"] == "bytes 50-59/200"


def test_etag_of_a_small_file_is_its_git_id(server):
    send_commit(server, a_file("hello.txt", b"hello\n"))
    answer = call(server, "GET", "/alice/open/resolve/main/hello.txt", token=None)
    assert answer.content == b"hello\n"
    assert answer.headers["ETag"] == '"ce013625030ba8dba906f756967f9e9ca394464a"'  # git hash-object


CARD = """---
tags: [sam]
model-index:
- name: m
  results:
  - task: {type: text-classification}
    dataset: {name: GLUE, type: nyu-mll/glue}
    metrics:
    - {type: accuracy, value: 0.5}
---
"""


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("tags: [sam]", "tags: [1]", '"tags" must be a string or a list of strings'),
        ("task: {type: text-classification}", "task: {}", '"model-index[0].results[0].task.type" must be a string'),
        (
            "type: nyu-mll/glue",
            "type: GLUE SST-2",
            '"model-index[0].results[0].dataset.type" must be the id of a data',
        ),
        (", value: 0.5", "", '"model-index[0].results[0].metrics[0].value" is required'),
        ("tags: [sam]", "tags: [sam", "invalid YAML"),
    ],
)
def test_card_with_wrong_metadata_is_refused(server, old, new, problem):
    assert card_problems(CARD) == ([], [])
    answer = call(server, "POST", "/api/validate-yaml", json={"content": CARD.replace(old, new), "repoType": "model"})
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["message"].startswith(problem)
