"""The page of methods: in go the registered methods and perturbations, out comes Markdown made from what they say.

python -m hf_sam.catalog > docs/methods.md
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, fields
from pathlib import Path

from .ascent_losses import ASCENT_LOSSES
from .components import Component, Registry
from .methods import METHODS
from .perturbations import PERTURBATIONS
from .validation import CONFLICTS


# In the repository; it is not installed.
MEASURED = Path(__file__).parents[1] / "benchmarks" / "results" / "methods.json"

HEADER = """# Methods and perturbations

Made from the code: `python -m hf_sam.catalog > docs/methods.md`.

A *method* (`SAMConfig.method`) says what is done with the gradients, a *perturbation* (`SAMConfig.perturbation`) where
to perturb. Gradients are those of one window; memory is in sizes of the trainable parameters, beside what the stock
Trainer needs: inside of an update, and kept between updates (and in checkpoints).
"""

ASCENT_HEADER = """`SAMConfig.ascent_loss` says what the ascent gradient is the gradient of, and
`SAMConfig.ascent_fraction` of which part of a window; an update then costs 1 + f gradients. Both are for methods whose
ascent gradient serves the perturbation alone.
"""


def page() -> str:
    """The whole page."""
    parts = [HEADER]
    parts += ["## Methods\n", _table(METHODS)]
    parts += [_section(name, method) for name, method in METHODS.items()]
    parts += ["## Perturbations\n", _table(PERTURBATIONS)]
    parts += [_section(name, perturbation) for name, perturbation in PERTURBATIONS.items()]
    parts += ["## Ascent losses\n", ASCENT_HEADER]
    parts += [_section(name, loss) for name, loss in ASCENT_LOSSES.items()]
    if MEASURED.is_file():
        parts += [_measured(json.loads(MEASURED.read_text(encoding="utf-8")))]
    parts += ["## What no method works with\n", _conflicts(CONFLICTS)]
    return "\n".join(parts)


def _measured(content: dict) -> str:
    """What `benchmarks/methods.py` has written."""
    rows = [
        "## Measured over the stock Trainer with AdamW\n",
        f"On one process with {content['cores']} cores ({content['cpu']}), torch {content['torch']}, "
        f"{content['date'][:10]}, by `python benchmarks/methods.py`: gradients of a window for an update, and how "
        "many of them wait for each other where the two ranks of a pair compute them; time as a multiple; peak memory "
        "above it in sizes of the trainable parameters.\n",
        "| method, perturbation | model | gradients | one after the other | time | memory |",
        "|---|---|---|---|---|---|",
    ]
    for result in content["results"]:
        numbers = (result[key] for key in ("gradients", "sequential", "time", "memory"))
        cells = [f"`{result['name']}`", result["model"], *(f"{number:.2f}" for number in numbers)]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def _table(registry: Registry) -> str:
    rows = ["| name | what it is | gradients | one after the other | memory | kept |", "|---|---|---|---|---|---|"]
    for name, component in registry.items():
        said = component.description
        sequential = said.sequential or said.gradients
        rows.append(
            f"| `{name}` | {said.full_name} | {said.gradients} | {sequential} | {said.memory} | {said.state} |"
        )
    return "\n".join(rows) + "\n"


def _section(name: str, component: type[Component]) -> str:
    said = component.description
    lines = [f"### `{name}`\n", f"{said.story}\n"]
    if said.source:
        lines += [f"Source: {said.source}.\n"]
    options = asdict(component.options_class())
    if options:
        helps = {entry.name: entry.metadata.get("help", "") for entry in fields(component.options_class)}
        lines += ["| option | default | |", "|---|---|---|"]
        lines += [f"| `{option}` | `{value!r}` | {helps[option]} |" for option, value in options.items()]
        lines += [""]
    if component.conflicts:
        lines += ["Cannot be combined with\n", _conflicts(component.conflicts)]
    return "\n".join(lines)


def _conflicts(conflicts: Iterable) -> str:
    lines = []
    for conflict in conflicts:
        option = conflict.kind or conflict.option.replace("{!r}", "…").replace("{}", "…")
        under = f" ({conflict.under})" if conflict.under else ""
        why = f", {conflict.why}" if conflict.why else ""
        lines.append(f"- {option}{under}{why}: {conflict.instead}.")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(page(), end="")
