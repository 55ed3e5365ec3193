"""From the command line to the runs of a matrix. Every mistake is reported before the first run starts."""

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hf_sam.methods import METHODS

from .. import REPOSITORY
from ..common.folders import existing_folder
from ..common.options import RecipeParser, read_recipe
from ..common.parser import unknown_option
from .benchmark import Benchmark
from .rho import read_choice
from .run import RESULT_FOLDER, Run


# Set for every run by the runner itself, with what to use instead.
RESERVED = {
    "task_name": "--tasks",
    "dataset_name": "--tasks",
    "method": "--methods",
    "seed": "--seeds",
    "model_name_or_path": "--model",
    "num_train_epochs": "--epochs, which leaves adamw-2x twice as many",
    "output_dir": "--runs_dir",
    "resume_from_checkpoint": "nothing, since a run in progress starts anew",
    "save_strategy": "the recipe itself to keep a model",
    "push_to_hub": "the recipe itself to share a model",
    "max_steps": "--epochs, which leaves adamw-2x twice as many",
    "eval_strategy": "nothing, since records have the metrics of every epoch",
    "do_train": "nothing, since every run trains",
    "do_eval": "nothing, since every run is evaluated",
    "load_best_model_at_end": "nothing, since the last weights are the result",
    "logging_strategy": "nothing, since records have the losses of every epoch",
    "report_to": "nothing, since the record of a run is its report",
}
FIXED = ("--save_strategy=no", "--logging_strategy=epoch", "--report_to=none", "--disable_tqdm=true")


def parse_overrides(tokens: Sequence[str]) -> dict[str, str]:
    """
    `["--max_length", "64", "--bf16"]` as `{"max_length": "64", "bf16": "true"}`.

    Raises:
        `ValueError`: a value without an option, or an option that the runner sets itself.
    """
    overrides: dict[str, str] = {}
    tokens = list(tokens)
    while tokens:
        option, separator, value = tokens.pop(0).partition("=")
        if not option.startswith("--"):
            raise ValueError(f"{option}: unexpected value; options for the recipe have the form --option value.")
        # argparse takes --max-steps for --max_steps.
        name = option[2:].replace("-", "_")
        if name in RESERVED:
            raise ValueError(f"--{name} cannot be passed to every run alike: use {RESERVED[name]}.")
        if not separator:
            value = tokens.pop(0) if tokens and not tokens[0].startswith("--") else "true"
        overrides[name] = value
    return overrides


class Planner:
    """
    Builds runs from recipes.

    Args:
        benchmark (`Benchmark`): The benchmark.
        options (`argparse.Namespace`): The runner's own options.
        overrides (`dict[str, str]`): Options for every recipe.

    Raises:
        `ValueError`: an option is unknown or has a value of the wrong type, or a folder is missing.
    """

    def __init__(self, benchmark: Benchmark, options: argparse.Namespace, overrides: dict[str, str]):
        self.benchmark, self.options, self.overrides = benchmark, options, overrides
        self.parser = RecipeParser(importlib.import_module(benchmark.options).ARGUMENTS)
        # What only a recipe says, so that the parser is content without one.
        required = [f"--{name}=none" for name in self.parser.required_names]
        _, unknown = self.parser.parse_known_args([*required, *(f"--{k}={v}" for k, v in overrides.items())])
        for option in unknown:
            known = self.parser.option_names | vars(options).keys()
            raise unknown_option(option[2:].split("=")[0], known, where="command line")
        if options.data_dir is not None:
            existing_folder("data_dir", options.data_dir)
        if options.model is None:
            self.model, self.folder_name = "the recipes' own", "default"
        else:
            folder = Path(options.model).resolve()
            self.model = folder.name if folder.is_dir() else options.model
            self.folder_name = Path(self.model).name
            # A model that comes with the repository is found from its root, wherever the command is repeated.
            known = folder.is_dir() and folder.is_relative_to(REPOSITORY)
            self.shown_model = folder.relative_to(REPOSITORY).as_posix() if known else self.model

    def settings(self) -> dict[str, Any]:
        """What all runs of one table have in common."""
        measured = ("sharpness_examples", "ascent_steps", "hessian_iterations")
        return {
            "model": self.model,
            "epochs": self.options.epochs,
            **{name: getattr(self.options, name) for name in measured},
            # Left out where it is 1, so that records made before it was noted can be added to.
            **({"nproc_per_node": self.options.nproc_per_node} if self.options.nproc_per_node > 1 else {}),
            "options": dict(sorted(self.overrides.items())),
        }

    def run(self, task: str, method: str, seed: int, rho: float | None = None, variant: str | None = None) -> Run:
        """
        Args:
            rho (`float`, *optional*): Instead of the recipe's, if the method perturbs at all.
            variant (`str`, *optional*): Name of the record's folder. Defaults to the method.

        Raises:
            `ValueError`: the recipe is missing or broken.
        """
        path = self.benchmark.recipe(task, method)
        recipe = read_recipe(REPOSITORY / path, self.parser)
        kind = METHODS[recipe.get("method", "sam")]
        own = {}
        if self.options.epochs is not None:
            own["num_train_epochs"] = f"{self.options.epochs * self._relative_epochs(task, recipe):g}"
        if kind.is_stock:
            rho = None
        elif rho is None:
            rho = float(self.overrides.get("rho", recipe.get("rho", "0.05")))
        if rho is not None:
            own["rho"] = f"{rho:g}"
        own["seed"] = str(seed)
        shared = [*(f"--{k}={v}" for k, v in (self.overrides | own).items()), *FIXED]

        processes = self.options.nproc_per_node if kind.runs_in_pairs else 1
        launcher = ("-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}")
        model = [] if self.options.model is None else [f"--model_name_or_path={self.options.model}"]
        data = [] if self.options.data_dir is None else [f"--data_dir={self.options.data_dir}"]
        command = (
            sys.executable,
            *(launcher if processes > 1 else ()),
            str(REPOSITORY / "recipes" / "run_measured.py"),
            f"--result_folder={RESULT_FOLDER}",
            f"--recipe={Path(self.benchmark.script).stem}",
            f"--sharpness_examples={self.options.sharpness_examples}",
            f"--ascent_steps={self.options.ascent_steps}",
            f"--hessian_iterations={self.options.hessian_iterations}",
            "--",
            str(REPOSITORY / path),
            *model,
            *data,
            *shared,
            f"--output_dir={RESULT_FOLDER}/output",
        )
        start = f"torchrun --standalone --nproc_per_node {processes}" if processes > 1 else "python"
        shown = [start, self.benchmark.script, path]
        shown += [f"--model_name_or_path={self.shown_model}"] if model else []
        shown += ["--data_dir=DATA_DIR"] if data else []
        return Run(
            name=f"{task}/{variant or method}/seed-{seed}",
            task=task,
            method=method,
            seed=seed,
            command=command,
            shown_command=" ".join([*shown, *shared]),
            settings=self.settings(),
            rho=rho,
        )

    def _relative_epochs(self, task: str, recipe: dict[str, Any]) -> float:
        baseline = read_recipe(REPOSITORY / self.benchmark.recipe(task, self.benchmark.baseline), self.parser)
        return float(recipe.get("num_train_epochs", 3)) / float(baseline.get("num_train_epochs", 3))


def read_rho(path: Path, model: str, tasks: Sequence[str]) -> dict[str, float]:
    """
    The radius chosen for each task, from a file that `select_rho.py` has written.

    Raises:
        `ValueError`: the file is missing, is for another model, or lacks a task.
    """
    if not path.is_file():
        raise ValueError(f"rho_file={str(path)!r}: no such file; choose rho first with select_rho.py.")
    content = read_choice(path)
    if content["model"] != model:
        raise ValueError(f"{path} was chosen for {content['model']}, not for {model}: leave --rho_file out.")
    missing = [task for task in tasks if task not in content["rho"]]
    if missing:
        raise ValueError(f"{path}: no rho for {', '.join(missing)}; choose it first with select_rho.py.")
    return {task: float(content["rho"][task]) for task in tasks}
