"""
A small Hub on 127.0.0.1, spoken to by the unmodified `huggingface_hub` client through `HF_ENDPOINT`.

It speaks what a Trainer, `from_pretrained`, `snapshot_download` and `hf upload` need for model repositories: whoami,
repository creation, YAML validation, preupload, LFS batch, upload and verification, commits (ndjson), trees, revision
information, references, branches, and resolve with HEAD, GET, ETag and ranges. Large files are sent to and served from
a second port, as the Hub does from its storage, so that a client which forwards a token there is caught.

Absent: Xet (a client needs `HF_HUB_DISABLE_XET=1`), datasets and spaces, pull requests, multi-part LFS uploads.
"""

import hashlib
import json
import secrets
import socket
import struct
import threading
from dataclasses import dataclass, field
from urllib.parse import unquote

from flask import Flask, g, jsonify, request
from werkzeug.serving import WSGIRequestHandler, make_server

from .card_rules import card_problems
from .store import HubError, Repository
from .views import add_read_views


@dataclass
class Fault:
    """Makes the requests of one step to one repository fail, `times` times (`None`: always)."""

    repo_id: str
    step: str  # name of a view function below: "create", "preupload", "lfs_batch", "lfs_upload", "commit", ...
    status: int | None  # None: drop the connection in the middle of the request's body
    times: int | None = None


@dataclass
class LocalHub:
    """
    The server. Use as a context manager; `endpoint` is then the value for `HF_ENDPOINT`.

    Args:
        users: names by token, for tokens that may write.
        readers: names by token, for tokens that may only read.
        organizations: for a user's name, the organizations that the user may write to.
        quota: bytes of LFS objects that the repositories of one namespace may hold.
    """

    users: dict[str, str]
    readers: dict[str, str] = field(default_factory=dict)
    organizations: dict[str, list[str]] = field(default_factory=dict)
    quota: dict[str, int] = field(default_factory=dict)
    repositories: dict[str, Repository] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    requests: list[tuple[str, str, str]] = field(default_factory=list)  # (method, path, name of the user or "")

    def __enter__(self):
        app = build_app(self)
        self._lock = threading.RLock()
        self._upload_keys: dict[str, str] = {}  # one-time key -> repository, as in a presigned URL
        self._servers = [
            make_server("127.0.0.1", 0, app, threaded=True, request_handler=_QuietHandler) for _ in range(2)
        ]
        for server in self._servers:
            threading.Thread(target=server.serve_forever, daemon=True).start()
        # Another host name too: older clients compare names, not ports, before they forward a token.
        self.endpoint = f"http://127.0.0.1:{self._servers[0].server_port}"
        self.storage = f"http://localhost:{self._servers[1].server_port}"
        return self

    def __exit__(self, *exc_info):
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def add_repository(self, repo_id: str, private: bool = False) -> None:
        self.repositories[repo_id] = Repository(repo_id, private)

    def repository(self, repo_id: str) -> Repository:
        return self.repositories[repo_id]

    def user_of(self, authorization: str | None) -> str | None:
        if authorization is None:
            return None
        token = authorization.removeprefix("Bearer ")
        name = self.users.get(token) or self.readers.get(token)
        if name is None:
            raise HubError(401, "Invalid credentials in Authorization header")
        return name

    def require_write(self, namespace: str) -> None:
        """401 without a token, 403 with one that may not write to the namespace."""
        if g.user is None:
            raise HubError(401, "Invalid username or password.")
        token = request.headers["Authorization"].removeprefix("Bearer ")
        if token not in self.users or namespace not in (g.user, *self.organizations.get(g.user, ())):
            raise HubError(403, f'You don\'t have the rights to create a model under the namespace "{namespace}"')

    def readable(self, repo_id: str) -> Repository:
        repository = self.repositories.get(repo_id)
        owners = (g.user, *self.organizations.get(g.user, ()))
        if repository is None or (repository.private and repo_id.split("/")[0] not in owners):
            # The Hub does not tell a stranger whether a repository exists: 401 without a token, 404 with one.
            raise HubError(401 if g.user is None else 404, "Repository not found", "RepoNotFound")
        return repository

    def writable(self, repo_id: str) -> Repository:
        repository = self.readable(repo_id)
        self.require_write(repo_id.split("/")[0])
        return repository

    def spring_fault(self, repo_id: str, step: str) -> None:
        """Fail the current request if a fault is set for it."""
        with self._lock:
            for fault in self.faults:
                if (fault.repo_id, fault.step) == (repo_id, step) and fault.times != 0:
                    fault.times = None if fault.times is None else fault.times - 1
                    if fault.status is None:
                        _drop_connection()
                    raise HubError(
                        fault.status, "Internal Error - We're working hard to fix this as soon as possible!"
                    )


class Dropped(Exception):  # noqa: N818
    """The connection of this request is gone."""


class _QuietHandler(WSGIRequestHandler):
    def log(self, *args):
        pass


def _drop_connection() -> None:
    """Read half of the body, then reset the connection: what a failing network does in the middle of an upload."""
    request.stream.read((request.content_length or 0) // 2)
    connection = request.environ["werkzeug.socket"]
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.shutdown(socket.SHUT_RDWR)
    raise Dropped


def _keep_escaped_slashes(wsgi_app):
    """Let `%2F`, which stands for a slash in the name of a branch, through to the routes."""

    def wrapped(environ, start_response):
        path = environ["REQUEST_URI"].split("?")[0]
        environ["PATH_INFO"] = unquote(path.replace("%2F", "%252F").replace("%2f", "%252F"), encoding="latin-1")
        return wsgi_app(environ, start_response)

    return wrapped


def build_app(hub: LocalHub) -> Flask:
    app = Flask(__name__)
    app.wsgi_app = _keep_escaped_slashes(app.wsgi_app)
    model = "/api/models/<namespace>/<name>"

    @app.before_request
    def authenticate():
        g.user = None
        if request.path.startswith("/storage/"):
            # Storage knows presigned URLs only: a token that arrives here was sent to the wrong host.
            if "Authorization" in request.headers:
                raise HubError(400, "Only one auth mechanism allowed")
            return
        try:
            g.user = hub.user_of(request.headers.get("Authorization"))
        finally:
            hub.requests.append((request.method, request.path, g.user or ""))

    @app.errorhandler(HubError)
    def refuse(error: HubError):
        request.get_data()  # a client that is still sending would see a reset connection instead of the answer
        response = jsonify(error=error.message)
        response.status_code = error.status
        response.headers["X-Error-Message"] = error.message
        if error.code is not None:
            response.headers["X-Error-Code"] = error.code
        if error.status >= 500:
            response.headers["Retry-After"] = "0"
        return response

    @app.errorhandler(Dropped)
    def answer_to_nobody(dropped: Dropped):
        return ""

    @app.post("/api/repos/create")
    def create():
        body = request.get_json()
        if g.user is None:
            raise HubError(401, "Invalid username or password.")
        namespace = body.get("organization") or g.user
        repo_id = f"{namespace}/{body['name']}"
        hub.spring_fault(repo_id, "create")
        if body.get("type", "model") != "model":
            raise HubError(400, "This server has models only")
        hub.require_write(namespace)
        answer = {"url": f"{hub.endpoint}/{repo_id}", "name": repo_id}
        with hub._lock:
            if repo_id in hub.repositories:
                return jsonify(error="You already created this model repo", **answer), 409
            is_private = bool(body.get("private")) or body.get("visibility") == "private"
            hub.add_repository(repo_id, is_private)
        return jsonify(**answer)

    @app.post("/api/validate-yaml")
    def validate_yaml():
        errors, warnings = card_problems(request.get_json()["content"])
        answer = jsonify(
            errors=[{"message": text} for text in errors], warnings=[{"message": text} for text in warnings]
        )
        return answer, 400 if errors else 200

    @app.post(f"{model}/preupload/<revision>")
    def preupload(namespace, name, revision):
        repository = hub.writable(f"{namespace}/{name}")
        hub.spring_fault(repository.repo_id, "preupload")
        body = request.get_json()
        committed = repository.commit_at(unquote(revision)).files
        return jsonify(
            files=[
                {
                    "path": file["path"],
                    "uploadMode": repository.upload_mode(file["path"], file["size"]),
                    "shouldIgnore": repository.is_ignored(file["path"], body.get("gitIgnore")),
                    "oid": committed[file["path"]].etag if file["path"] in committed else None,
                }
                for file in body["files"]
            ]
        )

    @app.post("/<namespace>/<name>.git/info/lfs/objects/batch")
    def lfs_batch(namespace, name):
        repository = hub.writable(f"{namespace}/{name}")
        hub.spring_fault(repository.repo_id, "lfs_batch")
        body = request.get_json()
        objects = [(item["oid"], item["size"]) for item in body["objects"]]
        missing = {oid: size for oid, size in objects if oid not in repository.objects}
        used = sum(r.used_bytes() for r in hub.repositories.values() if r.repo_id.split("/")[0] == namespace)
        if used + sum(missing.values()) > hub.quota.get(namespace, 2**40):
            raise HubError(413, f"Storage limit reached for {namespace}")
        answers = []
        for oid, size in objects:
            answer = {"oid": oid, "size": size}
            if oid in missing:
                key = secrets.token_hex(8)
                hub._upload_keys[key] = repository.repo_id
                verify = f"{hub.endpoint}/{repository.repo_id}.git/info/lfs/verify"
                answer["actions"] = {
                    "upload": {"href": f"{hub.storage}/storage/{oid}/{size}/{key}"},
                    "verify": {"href": verify},
                }
            answers.append(answer)
        return jsonify(transfer="basic", objects=answers)

    @app.put("/storage/<oid>/<int:size>/<key>")
    def lfs_upload(oid, size, key):
        repository = hub.repositories.get(hub._upload_keys.get(key))
        if repository is None:
            raise HubError(403, "Request has expired")
        hub.spring_fault(repository.repo_id, "lfs_upload")
        content = request.get_data()
        if len(content) != size or hashlib.sha256(content).hexdigest() != oid:
            raise HubError(400, "The Content-SHA256 you specified did not match what we received")
        del hub._upload_keys[key]
        repository.objects[oid] = content
        return "", 200, {"ETag": f'"{oid}"'}

    @app.post("/<namespace>/<name>.git/info/lfs/verify")
    def lfs_verify(namespace, name):
        repository = hub.writable(f"{namespace}/{name}")
        body = request.get_json()
        if len(repository.objects.get(body["oid"], b"")) != body["size"]:
            raise HubError(404, "LFS object not found")
        return jsonify({})

    @app.post(f"{model}/commit/<revision>")
    def commit(namespace, name, revision):
        repository = hub.writable(f"{namespace}/{name}")
        hub.spring_fault(repository.repo_id, "commit")
        lines = [json.loads(line) for line in request.get_data().splitlines()]
        with hub._lock:
            made = repository.commit(unquote(revision), lines, g.user)
        return jsonify(
            success=True, commitOid=made.oid, commitUrl=f"{hub.endpoint}/{repository.repo_id}/commit/{made.oid}"
        )

    add_read_views(app, hub)
    return app
