"""With what a run was made: code, packages, hardware."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from .. import REPOSITORY


PACKAGES = ("torch", "transformers", "accelerate", "datasets", "evaluate", "hf_sam")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a run depends on; those that are not installed are left out."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_commit() -> dict[str, Any]:
    """The commit of the code, and whether files that git knows differ from it. `None` outside of a checkout."""
    commit = _git("rev-parse", "HEAD")
    changes = None if commit is None else _git("status", "--porcelain", "--untracked-files=no")
    return {"git_commit": commit, "uncommitted_changes": None if changes is None else bool(changes)}


def _git(*args: str) -> str | None:
    try:
        result = subprocess.run(["git", *args], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return result.stdout.strip()


def hardware() -> dict[str, Any]:
    """Processor, threads and accelerators of this process."""
    import torch  # slow to import, and the report does without

    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {"processor": _processor(), "cores": os.cpu_count(), "threads": torch.get_num_threads(), "gpus": gpus}


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
