"""From a study to its runs. Every mistake is reported before the first run starts."""

import importlib
import shlex
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from hf_sam.methods import METHODS

from .. import REPOSITORY
from ..common.folders import existing_folder
from ..common.launch import launcher
from ..common.options import RecipeParser, as_arguments, read_recipe
from .benchmark import Benchmark
from .run import RESULT_FOLDER, Run
from .study_file import MEASURED, Choice, Options, StudyFile


# Set for every run by the runner itself: what a study or command has instead.
INSTEAD = {
    "tasks": "task_name dataset_name",
    "methods": "method",
    "seeds": "seed",
    "model": "model_name_or_path",
    "epochs, which leaves adamw-2x twice as many": "num_train_epochs max_steps",
    "eval_epochs, since records have the metrics over the epochs": "eval_strategy",
    "--data_dir of the command, since data lie elsewhere on every machine": "data_dir",
    "--folder of the command": "output_dir",
    "the recipe itself to keep or to share a model": "save_strategy push_to_hub",
    "nothing, since every run trains and is evaluated, anew and to its end": "do_train do_eval resume_from_checkpoint "
    "load_best_model_at_end",
    "nothing, since the record of a run is its report, with every epoch": "logging_strategy report_to",
    "the environment variable HF_TOKEN, since the options stand in the records of the runs": "hub_token",
}
RESERVED = {option: instead for instead, options in INSTEAD.items() for option in options.split()}
# Two that a method may have of its own.
OF_A_METHOD = {"method", "num_train_epochs"}
FIXED = ("--save_strategy=no", "--logging_strategy=epoch", "--report_to=none", "--disable_tqdm=true")


def parse_overrides(tokens: Sequence[str]) -> dict[str, str]:
    """
    `["--max_length", "64", "--bf16"]` as `{"max_length": "64", "bf16": "true"}`.

    Raises:
        `ValueError`: a value without an option.
    """
    overrides: dict[str, str] = {}
    tokens = list(tokens)
    while tokens:
        option, separator, value = tokens.pop(0).partition("=")
        if not option.startswith("--"):
            raise ValueError(f"{option}: unexpected value; options for the recipe have the form --option value.")
        if not separator:
            value = tokens.pop(0) if tokens and not tokens[0].startswith("--") else "true"
        # argparse takes --max-steps for --max_steps.
        overrides[option[2:].replace("-", "_")] = value
    return overrides


class Planner:
    """
    Builds runs from studies and recipes.

    Args:
        benchmark (`Benchmark`): The benchmark.
        model, data_dir (`str`, *optional*): Where the model of the study and the data lie on this machine.

    Raises:
        `ValueError`: a folder is missing.
    """

    def __init__(self, benchmark: Benchmark, model: str | None = None, data_dir: str | None = None):
        self.benchmark, self.model, self.data_dir = benchmark, model, data_dir
        self.parser = RecipeParser(importlib.import_module(benchmark.options).ARGUMENTS)
        if data_dir is not None:
            existing_folder("data_dir", data_dir)

    def run(self, study: StudyFile, task: str, method: str, seed: int, chosen: Options, name: str = "") -> Run:
        """
        Args:
            chosen (`dict`): Options that the study leaves to a choice. A rho is for methods that perturb.
            name (`str`, *optional*): Where the record lies. Defaults to `<task>/<method>/seed-<n>`.

        Raises:
            `ValueError`: the recipe is missing or broken, an option is unknown, is not for a study to set or has a
                value of the wrong type, or `--model` is another model than the study's.
        """
        path = self.benchmark.recipe(task, study.recipe(method))
        recipe = read_recipe(REPOSITORY / path, self.parser)
        options = study.options_of(task, method) | chosen
        self._check(options, study.methods[method])
        kind = METHODS[options.get("method", recipe.get("method", "sam"))]
        if kind.is_stock and "rho" in chosen:
            raise ValueError(f"method {method!r} does not perturb, so it has no rho to choose: use sam or sampa-0.1.")
        rho = None if kind.is_stock else float(options.get("rho", recipe.get("rho", "0.05")))
        own = {"seed": str(seed)} | ({} if rho is None else {"rho": f"{rho:g}"})
        options = {name: value for name, value in options.items() if name != "rho"}
        if study.epochs is not None:
            own["num_train_epochs"] = f"{study.epochs * self._relative_epochs(task, recipe):g}"

        def line(path: Path | str, model: str, data: str | None) -> list[str]:
            data = [f"--data_dir={data}"] if self.data_dir else []
            return [str(path), f"--model_name_or_path={model}", *data, *as_arguments(own | options), *FIXED]

        processes = study.nproc_per_node if kind.runs_in_pairs else 1
        pair = ["--standalone", f"--nproc_per_node={processes}"] if processes > 1 else []
        command = (
            *launcher(processes),
            str(REPOSITORY / "recipes" / "run_measured.py"),
            *(f"--result_folder={RESULT_FOLDER}", f"--recipe={Path(self.benchmark.script).stem}"),
            *(f"--{name}={getattr(study, name)}" for name in MEASURED),
            *("--", *line(REPOSITORY / path, self._model(study), self.data_dir)),
            f"--output_dir={RESULT_FOLDER}/output",
        )
        shown = [*(["torchrun", *pair] if pair else ["python"]), self.benchmark.script]
        return Run(
            name=name or f"{task}/{method}/seed-{seed}",
            task=task,
            method=method,
            seed=seed,
            command=command,
            shown_command=shlex.join(shown + line(path, study.model, "DATA_DIR")),
            settings=study.settings(task, method, chosen),
            rho=rho,
        )

    def trials(self, study: StudyFile, choice: Choice, tasks: Iterable[str]) -> list[Run]:
        """The runs that a choice is made of; `study` is the one that [`StudyFile.choices`] has with it."""
        return [
            self.run(study, task, choice.method, choice.seed, {choice.option: value}, choice.trial(task, value))
            for task in tasks
            for value in choice.values
        ]

    def table(self, study: StudyFile, chosen: Callable[[Choice, str], str]) -> list[Run]:
        """All runs of a study, with the value that was `chosen` for a task."""

        def options(task: str, method: str) -> Options:
            choices = (choice for _, choice in study.choices() if method in choice.methods)
            return {choice.option: chosen(choice, task) for choice in choices}

        return [
            self.run(study, task, method, seed, options(task, method))
            # Seed by seed, so that a study which is stopped early has whole rows.
            for seed in study.seeds
            for task in study.tasks
            for method in study.methods
        ]

    def _check(self, options: Options, of_method: Options) -> None:
        for name in options:
            if name in RESERVED and not (name in OF_A_METHOD and name in of_method):
                raise ValueError(f"{name} cannot be set for every run alike: use {RESERVED[name]}.")
        # What only a recipe says, so that the parser is content without one.
        required = [f"--{name}=none" for name in self.parser.required_names]
        _, unknown = self.parser.parse_known_args([*required, *as_arguments(options)])
        for option in unknown:
            raise self.parser.unknown(option[2:].split("=")[0], where="study or command line")

    def _model(self, study: StudyFile) -> str:
        if self.model is None:
            # A model that comes with the repository is found from wherever the command is given.
            folder = REPOSITORY / study.model
            return str(folder) if folder.is_dir() else study.model
        if Path(self.model).resolve().name != study.model_name:
            raise ValueError(f"model={self.model!r}: {study.name} is about {study.model}: give a study its own file.")
        return self.model

    def _relative_epochs(self, task: str, recipe: Options) -> float:
        baseline = read_recipe(REPOSITORY / self.benchmark.recipe(task, self.benchmark.baseline), self.parser)
        return float(recipe.get("num_train_epochs", 3)) / float(baseline.get("num_train_epochs", 3))
