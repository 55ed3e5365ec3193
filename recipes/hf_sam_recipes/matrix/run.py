"""One run of a matrix."""

from dataclasses import dataclass, field
from typing import Any


# In a command, stands for the folder in which the run may write.
RESULT_FOLDER = "{result_folder}"


@dataclass(frozen=True)
class Run:
    """
    One cell of a matrix, for one seed.

    Args:
        name (`str`): Where its record lies: `<task>/<method>/seed-<n>`.
        task, method (`str`), seed (`int`): Its place in the matrix.
        command (`tuple[str, ...]`): What to start. Must leave `train_info` and `meta_info` as JSON in `result.json` in
            the folder that stands for `{result_folder}`, and may use that folder for anything else.
        shown_command (`str`): The command that a reader would type, without paths of this machine.
        settings (`dict`): What all runs of one table have in common.
        rho (`float`, *optional*): Radius of the perturbation, `None` where nothing is perturbed.
    """

    name: str
    task: str
    method: str
    seed: int
    command: tuple[str, ...]
    shown_command: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    rho: float | None = None
