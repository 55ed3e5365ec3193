"""What the local Hub keeps: repositories of commits, and the large files they point to."""

import base64
import fnmatch
import hashlib
import itertools
import json
import time
from dataclasses import dataclass, field


# The patterns that the Hub writes into the `.gitattributes` of a new model repository.
LFS_SUFFIXES = (
    "7z arrow bin bz2 ckpt ftz gz h5 joblib mlmodel model msgpack npy npz onnx ot parquet pb pickle pkl pt pth rar "
    "safetensors tar tflite tgz wasm xz zip zst"
)
LFS_PATTERNS = [f"*.{suffix}" for suffix in LFS_SUFFIXES.split(" ")] + ["*.lfs.*", "*.tar.*", "*tfevents*"]
MAX_REGULAR_SIZE = 10 * 2**20  # bytes: the Hub refuses larger files outside of LFS

_commit_counter = itertools.count()


class HubError(Exception):
    """The Hub's "no": an HTTP status, its `X-Error-Code` (or `None`) and its `X-Error-Message`."""

    def __init__(self, status: int, message: str, code: str | None = None):
        super().__init__(message)
        self.status, self.message, self.code = status, message, code


@dataclass(frozen=True)
class File:
    """One file of a commit. `content` is what a download returns; in git, an LFS file is only a pointer to it."""

    content: bytes
    is_lfs: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def blob_id(self) -> str:
        """The id that git gives to the file, or to its pointer if it is kept in LFS."""
        data = self.content
        if self.is_lfs:
            data = (
                f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.content)}\n"
            ).encode()
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.is_lfs else self.blob_id


@dataclass(frozen=True)
class Commit:
    oid: str
    parent: str | None
    summary: str
    author: str
    files: dict[str, File]
    date: str


@dataclass
class Repository:
    """A model repository: commits by id, branches by name, and the LFS objects that were uploaded to it by sha256."""

    repo_id: str
    private: bool
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self):
        attributes = "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in LFS_PATTERNS)
        self.branches["main"] = self._record(
            None, "initial commit", "system", {".gitattributes": File(attributes.encode(), is_lfs=False)}
        )

    def _record(self, parent: str | None, summary: str, author: str, files: dict[str, File]) -> str:
        listing = {path: file.blob_id for path, file in sorted(files.items())}
        identity = json.dumps([next(_commit_counter), parent, summary, listing])
        oid = hashlib.sha1(identity.encode()).hexdigest()
        date = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
        self.commits[oid] = Commit(oid, parent, summary, author, files, date)
        return oid

    def commit_at(self, revision: str) -> Commit:
        """The commit that a branch name or a commit id stands for; 404 if there is none."""
        oid = self.branches.get(revision, revision)
        if oid not in self.commits:
            raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return self.commits[oid]

    def history(self, revision: str = "main") -> list[Commit]:
        """Commits from the newest to the first."""
        commits = [self.commit_at(revision)]
        while commits[-1].parent is not None:
            commits.append(self.commits[commits[-1].parent])
        return commits

    def used_bytes(self) -> int:
        return sum(len(content) for content in self.objects.values())

    def upload_mode(self, path: str, size: int) -> str:
        name = path.rsplit("/", 1)[-1]
        in_lfs = any(fnmatch.fnmatch(name, pattern) or fnmatch.fnmatch(path, pattern) for pattern in LFS_PATTERNS)
        return "lfs" if in_lfs or size > MAX_REGULAR_SIZE else "regular"

    def is_ignored(self, path: str, gitignore: str | None) -> bool:
        """Whether `.gitignore`, the one that is being pushed or else the one of the repository, keeps a file out."""
        if gitignore is None:
            committed = self.commit_at("main").files.get(".gitignore")
            gitignore = "" if committed is None else committed.content.decode()
        patterns = [line.rstrip("/") for line in gitignore.split() if not line.startswith("#")]
        return any(fnmatch.fnmatch(part, pattern) for pattern in patterns for part in (path, *path.split("/")))

    def commit(self, revision: str, lines: list[dict], author: str) -> Commit:
        """Apply the operations of an ndjson commit (the first line is its header), all of them or none."""
        if revision not in self.branches:
            raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        header = lines[0]["value"]
        if lines[0]["key"] != "header" or not header.get("summary"):
            raise HubError(400, "A commit needs a header with a summary")
        head = self.branches[revision]
        if header.get("parentCommit") not in (None, head):
            raise HubError(412, "A commit has happened since. Please refresh and try again.")
        files = dict(self.commits[head].files)
        for line in lines[1:]:
            self._apply(files, line["key"], line["value"])
        if files == self.commits[head].files:
            raise HubError(400, "No files have been modified since last commit")
        self.branches[revision] = self._record(head, header["summary"], author, files)
        return self.commits[self.branches[revision]]

    def _apply(self, files: dict[str, File], key: str, value: dict) -> None:
        path = value["path"]
        if path.startswith("/") or any(
            part in ("..", ".git", "") for part in path.split("/") if key != "deletedFolder"
        ):
            raise HubError(400, f"Invalid path: {path}")
        if key == "file":
            content = base64.b64decode(value["content"])
            if self.upload_mode(path, len(content)) == "lfs" and content:
                raise HubError(400, f"{path} must be uploaded with LFS")
            files[path] = File(content, is_lfs=False)
        elif key == "lfsFile":
            content = self.objects.get(value["oid"])
            if content is None or value.get("size", len(content)) != len(content):
                raise HubError(400, f"LFS object {value['oid']} of {path} was not uploaded")
            files[path] = File(content, is_lfs=True)
        elif key in ("deletedFile", "deletedFolder"):
            gone = [name for name in files if name == path or name.startswith(path.rstrip("/") + "/")]
            if not gone:
                raise HubError(404, "A file with this name doesn't exist", "EntryNotFound")
            for name in gone:
                del files[name]
        else:
            raise HubError(400, f"Unknown operation {key}")
