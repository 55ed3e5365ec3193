"""The command line of the runner, for any benchmark."""

import argparse
import math
import signal
from collections.abc import Sequence
from pathlib import Path

from .. import REPOSITORY
from ..common.folders import made_folder
from ..common.parser import ScriptParser, unknown_option
from .benchmark import Benchmark
from .choice import best_value, read_trials
from .plan import Planner, parse_overrides
from .records import FAILED, FINISHED, RecordStore
from .run import Run
from .runner import MatrixRunner, require_same_settings
from .study_file import RESULTS, STUDIES, Choice, find_study


def run_main(benchmark: Benchmark, args: Sequence[str] | None = None) -> int:
    """
    Choose what a study leaves to be chosen, then do what is missing of it. Returns the exit status: 0 if every run has
    finished, 1 if some have failed.
    """
    parser = _parser(benchmark)
    options, extra = parser.parse_known_args(args)
    planner, tasks = Planner(benchmark, options.model, options.data_dir), {task.name: task for task in benchmark.tasks}
    home, overrides = REPOSITORY / benchmark.folder, parse_overrides(extra)
    for name in overrides:
        if name not in planner.parser.option_names:
            raise unknown_option(name, [*parser.option_names, *planner.parser.option_names], where="command line")
    study, folder = find_study(home / STUDIES, options.study), options.folder or home
    if folder == home and (overrides or options.epochs):
        raise ValueError(
            f"{', '.join(overrides) or 'epochs'}: {study.name} has it otherwise, and its records must be of one kind: "
            "change the study, or give --folder another place for the records."
        )
    study = study.with_overrides(overrides, options.epochs).part(options.tasks, options.methods, options.seeds)

    def best(choice: Choice, task: str) -> str | None:
        return best_value(choice, read_trials(tasks[task], choice, folder))

    # Planned with what may be chosen, too: every mistake is reported before the first run.
    runs = planner.table(study, lambda choice, task: best(choice, task) or choice.values[0])
    stages = [
        (choice, RecordStore(folder / choice.records), planner.trials(chooser, choice, study.tasks))
        for chooser, choice in study.choices()
    ]
    if options.epochs is not None and not 0 < options.epochs < math.inf:
        raise ValueError(f"epochs={options.epochs}: must be above 0, and finite.")
    if options.jobs < 1:
        raise ValueError(f"jobs={options.jobs}: must be at least 1.")
    store = RecordStore(folder / RESULTS / study.name)
    for _, of_stage, stage_runs in [*stages, (None, store, runs)]:
        require_same_settings(stage_runs, of_stage)
        if options.status:
            print(status_table(stage_runs, of_stage))
    if options.status:
        return 0
    for choice, of_choice, trials in stages:
        _run(trials, of_choice, options)
        for task in study.tasks:
            value = best(choice, task)
            if value is None:
                raise ValueError(
                    f"{task}: no {choice.option} can be chosen. If a trial has failed, repeat with --retry_failed; if "
                    "none has a finite loss, lower the learning rate."
                )
            print(f"{task}: {choice.option} {value} for {', '.join(choice.methods)}")
    return _run(planner.table(study, best), store, options)


def status_table(runs: Sequence[Run], store: RecordStore) -> str:
    """One line per task and method, or value on trial: finished, failed and missing seeds."""
    lines: dict[tuple[str, str], dict[str, list[str]]] = {}
    for run in runs:
        task, variant, _ = run.name.split("/")
        found = lines.setdefault((task, variant), {FINISHED: [], FAILED: [], "missing": []})
        record = store.read(run.name)
        found["missing" if record is None else record["status"]].append(str(run.seed))
    shown = {
        key: "; ".join(f"{s} {', '.join(seeds)}" for s, seeds in of.items() if seeds) for key, of in lines.items()
    }
    return "\n".join(f"{task:8} {variant:12} {found}" for (task, variant), found in shown.items())


def _parser(benchmark: Benchmark) -> ScriptParser:
    parser = ScriptParser(
        f"Do what is missing of a study of {benchmark.folder}/{STUDIES}: first what is to be chosen, then "
        f"every task with every method and every seed. All other options go to {benchmark.script}, beat the study's, "
        "and need a --folder."
    )
    parser.add_argument("study", help=f"name of a file in {benchmark.folder}/{STUDIES}, or path of one elsewhere")
    parser.add_argument("--status", action="store_true", help="show what is there and what is missing, and do nothing")
    parser.add_argument("--tasks", nargs="+", help="only these of the study")
    parser.add_argument("--methods", nargs="+", help="only these of the study")
    parser.add_argument("--seeds", nargs="+", type=int, help="only these of the study")
    parser.add_argument("--model", help="where the model of the study lies; default: as the study has it")
    parser.add_argument("--data_dir", help="folder with the data; the default is the Hub")
    parser.add_argument("--folder", type=Path, help=f"where the records go; default: {benchmark.folder}")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side")
    parser.add_argument("--retry_failed", action="store_true", help="do runs again that have failed before")
    parser.add_argument("--keep_going", action="store_true", help="also when the first runs all fail alike")
    parser.add_argument("--epochs", type=float, help="epochs of the baseline; adamw-2x has twice as many")
    return parser


def _run(runs: Sequence[Run], store: RecordStore, options: argparse.Namespace) -> int:
    # Asked to end, the runner ends its runs first, as after an interrupt from the keyboard.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    made_folder("folder", store.folder)
    counts = MatrixRunner(runs, store, options.jobs, options.retry_failed, options.keep_going).run()
    print(f"{counts[FINISHED]} of {len(runs)} runs finished, {counts[FAILED]} failed; records in {store.folder}")
    return 0 if counts[FINISHED] == len(runs) else 1
