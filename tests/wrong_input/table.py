"""
The table of wrong inputs: each is tried in this process, as `run_script` runs it, and what came of it is counted.

    python -m tests.wrong_input.table
"""

import io
import os
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hf_sam_recipes.common.entry import MISTAKE, run_script
from tests.cifar import made_cifar
from tests.command_lines import later_wins
from tests.recipes import made_glue
from tests.recipes.mistakes import CIFAR10, MRPC, SCRIPTS

from . import command_lines, configs, data_files, studies, yaml_files


ON_GLUE = f"{MRPC} --data_dir {{glue}} --model_name_or_path {{model}} --output_dir {{tmp}}/new --use_cpu true"
ON_CIFAR = (
    f"{CIFAR10} --data_dir {{cifar}} --model_name_or_path {{vit}} --output_dir {{tmp}}/new --use_cpu true "
    "--dataloader_num_workers 0"
)
# A line of a terminal, of which an error may have three.
COLUMNS = 200
MOST_CHARACTERS = 3 * COLUMNS


@dataclass
class Case:
    """
    Args:
        kind (`str`): Of input.
        command (`str`): A command line, the script first; `{name}` stands for a place.
        expected (`str`): Regular expression for what the error must say.
        make (`Callable`, *optional*): Writes the input into the folder `{tmp}`.
        call (`Callable`, *optional*): What is tried instead of a script.
    """

    kind: str
    command: str
    expected: str
    make: Callable[[Path], Any] | None = None
    call: Callable[[], Any] | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        return f"{self.kind}: {self.command.rpartition('--use_cpu true')[2].strip() or self.expected}"


def cases() -> list[Case]:
    table = [Case("command line", f"recipes/run_glue.py {ON_GLUE} {o}", e) for o, e in command_lines.GLUE]
    table += [Case("command line", f"recipes/run_cifar.py {ON_CIFAR} {o}", e) for o, e in command_lines.CIFAR]
    table += [Case("YAML", f"{script} {{tmp}}/wrong.yaml", e, make) for script, make, e in yaml_files.CASES]
    for kind, script, options, make, expected in data_files.CASES:
        right = ON_GLUE if "glue" in script else ON_CIFAR
        table.append(Case(kind, f"{script} {right} {options}", expected, make))
    table += [Case(kind, command, e, make) for kind, command, make, e in studies.CASES]
    table += [Case("SAMConfig", what, e, call=call) for what, call, e in configs.CASES]
    return table


@dataclass
class Outcome:
    status: Any
    stderr: str
    left: list[str]

    def verdict(self, case: Case) -> str:
        """`clear`, `silent` (it went on as if nothing were wrong), or what is unclear."""
        if self.status == 0:
            return "silent"
        told = [line for line in self.stderr.splitlines() if line.startswith("error: ")]
        if self.status != MISTAKE:
            return f"unclear: ended with {self.status!r}"
        if len(told) != 1 or "most recent call last" in self.stderr:
            return "unclear: not told once"
        if len(told[0].replace(os.environ.get("TMPDIR", "/tmp"), "")) > MOST_CHARACTERS:
            return f"unclear: {len(told[0])} characters"
        if not re.search(case.expected, told[0]):
            return f"unclear: {told[0]}"
        return f"unclear: left {self.left}" if self.left else "clear"


def write_places(folder: Path) -> dict[str, Path]:
    """Right data and right models."""
    places = {name: folder / name for name in ("glue", "tsv", "model", "cifar", "vit")}
    for task in ("mrpc", "rte", "sst2", "qqp"):
        made_glue.write_parquet(places["glue"], task)
        made_glue.write_tsv(places["tsv"], task)
    made_glue.write_model(places["model"])
    made_cifar.write_parquet(places["cifar"], "cifar10")
    made_cifar.write_model(places["vit"], "vit")
    return places


def words_of(command: str, places: dict[str, Path]) -> list[str]:
    """Of `--option` the later one counts; `++option` is given in spite of another."""
    words = []
    for word in command.split():
        for name, place in places.items():
            word = word.replace(f"{{{name}}}", str(place))
        words.append(word)
    return [word.replace("++", "--") for word in later_wins(words)]


def attempt(case: Case, places: dict[str, Path], tmp: Path) -> Outcome:
    tmp.mkdir(parents=True, exist_ok=True)
    places = places | {"tmp": tmp}
    if case.make is not None:
        case.make(tmp, places)
    script, *args = [case.command] if case.call else words_of(case.command, places)
    before, stderr = _snapshot(tmp), io.StringIO()
    main = (lambda args: case.call()) if case.call else SCRIPTS[script]
    with _process(script, args), redirect_stderr(stderr), redirect_stdout(io.StringIO()):
        try:
            run_script(main, go_on="again")
        except SystemExit as ended:
            status = ended.code
        except Exception as error:
            status = error
    left = sorted(name for name, of in _snapshot(tmp).items() if before.get(name) != of)
    return Outcome(status, stderr.getvalue(), left + sorted(set(before) - set(_snapshot(tmp))))


@contextmanager
def _process(script: str, args: list[str]) -> Iterator[None]:
    argv, sys.argv = sys.argv, [script, *args]
    try:
        yield
    finally:
        sys.argv = argv


def _snapshot(folder: Path) -> dict[str, Any]:
    paths = (path for path in folder.rglob("*") if ".scratch" not in path.parts)
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in paths}


def main() -> None:
    counts = Counter()
    with tempfile.TemporaryDirectory() as folder:
        places = write_places(Path(folder) / "places")
        for number, case in enumerate(cases()):
            verdict = attempt(case, places, Path(folder) / str(number)).verdict(case)
            counts[case.kind, verdict.partition(":")[0]] += 1
            if verdict != "clear":
                print(f"{case.name}\n    {verdict}")
    words = ("clear", "unclear", "silent")
    print(summary(counts, words))


def summary(counts: Counter, words: tuple[str, ...] = ("clear", "unclear", "silent")) -> str:
    kinds = list(dict.fromkeys(kind for kind, _ in counts))
    lines = [f"{kind:14}" + "".join(f"{counts[kind, word]:5} {word}" for word in words) for kind in kinds]
    total = {word: sum(counts[kind, word] for kind in kinds) for word in words}
    return "\n".join([*lines, f"{'all':14}" + "".join(f"{total[word]:5} {word}" for word in words)])


if __name__ == "__main__":
    os.environ["HF_HUB_OFFLINE"] = "1"
    sys.exit(main())
