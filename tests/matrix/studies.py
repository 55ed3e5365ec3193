"""Study files for tests."""

from pathlib import Path
from typing import Any

import yaml

from hf_sam_recipes.matrix.study_file import STUDIES, StudyFile, read_study


def write_study_file(folder: Path, name: str = "study", **keys: Any) -> Path:
    """A small study in `folder/studies/`, with these keys instead of its own; `None` leaves one out."""
    study = {
        "title": "A study",
        "question": "Does it?",
        "model": "tiny",
        "tasks": ["cola", "rte", "qqp", "qnli"],
        "methods": ["adamw", "adamw-2x", "sam", "sampa-0", "sampa-0.1"],
        "seeds": [1, 2, 3],
        "epochs": 2,
        "options": {"max_length": 64},
    } | keys
    path = folder / STUDIES / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump({key: value for key, value in study.items() if value is not None}))
    return path


def study_file(folder: Path, **keys: Any) -> StudyFile:
    return read_study(write_study_file(folder, **keys))
