"""The reading half of the local Hub: information, trees, references, and the files themselves."""

from urllib.parse import unquote

from flask import Flask, Response, g, jsonify, redirect, request

from .store import Commit, HubError, Repository


def add_read_views(app: Flask, hub) -> None:
    model = "/api/models/<namespace>/<name>"

    @app.get("/api/whoami-v2")
    def whoami():
        if g.user is None:
            raise HubError(401, "Invalid username or password.")
        token = request.headers["Authorization"].removeprefix("Bearer ")
        access = {"displayName": "local", "role": "write" if token in hub.users else "read"}
        orgs = [{"type": "org", "name": name} for name in hub.organizations.get(g.user, ())]
        return jsonify(
            type="user", id=g.user, name=g.user, orgs=orgs, auth={"type": "access_token", "accessToken": access}
        )

    def describe(repository: Repository, commit: Commit) -> dict:
        return {
            "_id": repository.repo_id,
            "id": repository.repo_id,
            "modelId": repository.repo_id,
            "author": repository.repo_id.split("/")[0],
            "sha": commit.oid,
            "lastModified": commit.date,
            "createdAt": repository.history()[-1].date,
            "private": repository.private,
            "gated": False,
            "disabled": False,
            "tags": [],
            "downloads": 0,
            "likes": 0,
            "siblings": [{"rfilename": path} for path in sorted(commit.files)],
        }

    @app.get(model)
    @app.get(f"{model}/revision/<revision>")
    def info(namespace, name, revision="main"):
        repository = hub.readable(f"{namespace}/{name}")
        return jsonify(describe(repository, repository.commit_at(unquote(revision))))

    @app.get(f"{model}/tree/<revision>")
    @app.get(f"{model}/tree/<revision>/<path:folder>")
    def tree(namespace, name, revision, folder=""):
        repository = hub.readable(f"{namespace}/{name}")
        files = repository.commit_at(unquote(revision)).files
        prefix = unquote(folder).rstrip("/") + "/" if folder else ""
        inside = sorted(path for path in files if path.startswith(prefix))
        if prefix and not inside:
            raise HubError(404, f"{folder} does not exist on {revision!r}", "EntryNotFound")
        recursive = request.args.get("recursive", "").lower() == "true"
        entries, folders = [], set()
        for path in inside:
            parts = path[len(prefix) :].split("/")
            folders |= {prefix + "/".join(parts[:depth]) for depth in range(1, len(parts) if recursive else 2)} - {
                path
            }
            if recursive or len(parts) == 1:
                file = files[path]
                entry = {"type": "file", "path": path, "size": len(file.content), "oid": file.blob_id}
                if file.is_lfs:
                    entry["lfs"] = {"oid": file.sha256, "size": len(file.content), "pointerSize": 134}
                entries.append(entry)
        entries += [{"type": "directory", "path": path, "oid": "0" * 40, "size": 0} for path in sorted(folders)]
        return jsonify(entries)

    @app.get(f"{model}/refs")
    def refs(namespace, name):
        repository = hub.readable(f"{namespace}/{name}")
        branches = [
            {"name": branch, "ref": f"refs/heads/{branch}", "targetCommit": oid}
            for branch, oid in repository.branches.items()
        ]
        return jsonify(branches=branches, tags=[], converts=[])

    @app.get(f"{model}/commits/<revision>")
    def commits(namespace, name, revision):
        repository = hub.readable(f"{namespace}/{name}")
        return jsonify(
            [
                {"id": c.oid, "title": c.summary, "message": "", "date": c.date, "authors": [{"user": c.author}]}
                for c in repository.history(unquote(revision))
            ]
        )

    @app.post(f"{model}/branch/<branch>")
    def branch(namespace, name, branch):
        repository = hub.writable(f"{namespace}/{name}")
        branch = unquote(branch)
        if branch in repository.branches:
            raise HubError(409, f"Reference already exists: refs/heads/{branch}")
        start = (request.get_json(silent=True) or {}).get("startingPoint", "main")
        repository.branches[branch] = repository.commit_at(start).oid
        return jsonify({})

    @app.get("/<namespace>/<name>/resolve/<revision>/<path:path>")
    def resolve(namespace, name, revision, path):
        repository = hub.readable(f"{namespace}/{name}")
        commit = repository.commit_at(unquote(revision))
        hub.spring_fault(repository.repo_id, "resolve")
        file = commit.files.get(path)
        headers = {"X-Repo-Commit": commit.oid}
        if file is None:
            response = jsonify(error="Entry not found")
            headers |= {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"}
            return response, 404, headers
        headers["ETag"] = f'"{file.etag}"'
        if not file.is_lfs:
            return _download(file.content, headers)
        headers |= {"X-Linked-ETag": f'"{file.etag}"', "X-Linked-Size": str(len(file.content))}
        response = redirect(f"{hub.storage}/storage/{repository.repo_id}/{file.sha256}", 302)
        response.headers.extend(headers)
        return response

    @app.get("/storage/<namespace>/<name>/<sha256>")
    def storage(namespace, name, sha256):
        return _download(hub.repositories[f"{namespace}/{name}"].objects[sha256], {"ETag": f'"{sha256}"'})


def _download(content: bytes, headers: dict[str, str]) -> Response:
    """A download that honours HEAD, `Range` and `If-None-Match`."""
    response = Response(content, mimetype="application/octet-stream", headers=headers)
    return response.make_conditional(request, accept_ranges=True, complete_length=len(content))
