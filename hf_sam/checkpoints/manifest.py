"""Is a checkpoint whole? In goes a folder, out comes a manifest of its files, or the reason why it is not whole.

Knows files, and neither trainers nor weights. The manifest says "not complete" from before the first file of a
checkpoint is written until after the last one: a process that is killed at any moment leaves either the earlier
checkpoints and this mark, or a whole one.
"""

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .contents import why_unreadable


MANIFEST_NAME = "sam_manifest.json"
FORMAT = 1

# A larger file is told by its size and this many blocks, evenly spaced, the first and the last among them: what was
# cut off, or never reached the disk, is found without reading hundreds of gigabytes.
BLOCKS, BLOCK_BYTES = 64, 2**20


def begin(folder: str | os.PathLike) -> None:
    """Mark `folder`, which is made where missing, as a checkpoint that is being written."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    _write(Path(folder), {"format": FORMAT, "complete": False})


def finish(folder: str | os.PathLike, ranks: int, to_disk: bool = False) -> None:
    """
    Take note of every file in `folder`, below which all ranks have written what is theirs, and mark it as complete.

    Args:
        folder (`str`): of the checkpoint.
        ranks (`int`): how many ranks have written it.
        to_disk (`bool`, *optional*, defaults to `False`): wait until the files are on the disk, as one must before an
            older checkpoint is deleted. Else the system may keep them in memory for half a minute; what a loss of
            power takes then is found by the hashes.

    Raises:
        `OSError`: a file could not be brought to the disk, for instance because it is full.
    """
    root = Path(folder)
    entries = {}
    for path in _files(root):
        if to_disk:
            _bring_to_disk(path)
        entries[path.relative_to(root).as_posix()] = {"bytes": path.stat().st_size, "sha256": fingerprint(path)}
    _write(root, {"format": FORMAT, "complete": True, "ranks": ranks, "files": entries})
    if to_disk:
        _bring_to_disk(root / MANIFEST_NAME)
        _bring_to_disk(root)


def why_not_whole(folder: str | os.PathLike, hashes: bool = True) -> str | None:
    """
    Args:
        folder (`str`): of the checkpoint.
        hashes (`bool`, *optional*, defaults to `True`): compare the content of the files, not only their sizes.

    Returns:
        `str` or `None`: what is wrong, such as "model.safetensors has 12 bytes of 400"; `None` for a whole checkpoint.
        Files that were added to it later do not matter.
    """
    root = Path(folder)
    if not root.is_dir():
        return "there is no such folder"
    path = root / MANIFEST_NAME
    if not path.exists():
        return why_unreadable(root)
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        complete, entries = manifest["complete"], manifest.get("files", {})
        expected = {name: (int(entry["bytes"]), entry["sha256"]) for name, entry in entries.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{MANIFEST_NAME} cannot be read ({error})"
    if not complete:
        return "saving was cut off before all ranks had written their files"
    for name, (size, content) in expected.items():
        problem = _difference(root / name, name, size, content if hashes else None)
        if problem:
            return f"{problem} (if that is meant, remove {MANIFEST_NAME})"
    return None


def fingerprint(path: Path) -> str:
    """SHA-256 of a file: all of it up to 64 MiB, of 64 blocks of 1 MiB that are evenly spaced beyond that."""
    digest = hashlib.sha256()
    size = path.stat().st_size
    with open(path, "rb") as file:
        for start in _block_starts(size):
            file.seek(start)
            digest.update(file.read(BLOCK_BYTES))
    return digest.hexdigest()


def _block_starts(size: int) -> Iterator[int]:
    if size <= BLOCKS * BLOCK_BYTES:
        yield from range(0, size, BLOCK_BYTES)
    else:
        yield from ((size - BLOCK_BYTES) * block // (BLOCKS - 1) for block in range(BLOCKS))


def _difference(path: Path, name: str, size: int, content: str | None) -> str | None:
    try:
        found = path.stat().st_size
        if found != size:
            return f"{name} has {found} bytes of {size}"
        if content is not None and fingerprint(path) != content:
            return f"{name} is not what was written"
    except FileNotFoundError:
        return f"{name} is missing"
    except OSError as error:
        return f"{name} cannot be read ({error})"
    return None


def _files(root: Path) -> list[Path]:
    """All files below `root`, sharded weights in folders of their own included, except the manifest itself."""
    own = {root / MANIFEST_NAME, root / f"{MANIFEST_NAME}.tmp"}
    return sorted(path for path in root.rglob("*") if path.is_file() and path not in own)


def _write(root: Path, manifest: dict[str, Any]) -> None:
    temporary = root / f"{MANIFEST_NAME}.tmp"
    temporary.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, root / MANIFEST_NAME)


def _bring_to_disk(path: Path) -> None:
    if os.name != "posix":
        # Windows flushes neither folders nor files that were opened for reading.
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems cannot be asked to.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)
