"""The command lines of the runner and of the choice of rho, for any benchmark."""

import argparse
import signal
from collections.abc import Sequence
from pathlib import Path

from .. import REPOSITORY
from ..common.folders import made_folder
from ..common.parser import ScriptParser
from .benchmark import Benchmark
from .plan import Planner, parse_overrides, read_rho
from .records import FAILED, FINISHED, RecordStore
from .rho import RHO_GRID, choose_rho, require_no_other_choice, write_rho
from .run import Run
from .runner import MatrixRunner, require_same_settings


def run_main(benchmark: Benchmark, args: Sequence[str] | None = None) -> int:
    """Do what is missing of a matrix. Returns the exit status: 0 if every run has finished, 1 if some have failed."""
    parser = _parser(
        f"Fine-tune on {benchmark.title}: every task with every method and every seed, what is missing of it. All "
        f"other options go to {benchmark.script}."
    )
    parser.add_argument("--tasks", nargs="+", default=[task.name for task in benchmark.tasks])
    parser.add_argument("--methods", nargs="+", default=list(benchmark.methods), help="names of recipes")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3, 4, 5])
    parser.add_argument("--rho_file", type=Path, help="rho per task, as select_rho.py writes it")
    parser.add_argument("--status", action="store_true", help="show what is there and what is missing, and do nothing")
    options, extra = parser.parse_known_args(args)
    planner = Planner(benchmark, options, parse_overrides(extra))
    rho = {}
    if options.rho_file is not None:
        if "rho" in planner.overrides:
            raise ValueError("--rho and --rho_file both set the radius: leave one of them out.")
        rho = read_rho(options.rho_file, planner.model, options.tasks)
    runs = [
        planner.run(task, method, seed, rho.get(task))
        # Seed by seed, so that a matrix which is stopped early has whole rows.
        for seed in options.seeds
        for task in options.tasks
        for method in options.methods
    ]
    store = RecordStore(options.runs_dir or _default_folder(benchmark, planner))
    if options.status:
        require_same_settings(runs, store)
        print(status_table(runs, store))
        return 0
    return _run(runs, store, options)


def rho_main(benchmark: Benchmark, args: Sequence[str] | None = None) -> int:
    """Choose rho for each task on a part of its training sample. Returns the exit status."""
    parser = _parser(
        f"Choose rho for each task of {benchmark.title} on a held-out part of the training sample, never on the "
        "examples that are reported."
    )
    parser.add_argument("--tasks", nargs="+", default=[task.name for task in benchmark.tasks])
    parser.add_argument("--method", default="sam", help="recipe to choose with; the choice is for all that perturb")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rhos", nargs="+", type=float, default=list(RHO_GRID))
    parser.add_argument("--holdout", type=float, default=0.1, help="part of the training sample to choose on")
    parser.add_argument("--rho_file", type=Path, required=True, help="where the choice is written")
    options, extra = parser.parse_known_args(args)
    if not 0 < options.holdout < 1:
        raise ValueError(f"holdout={options.holdout}: must be between 0 and 1.")
    overrides = parse_overrides([f"--holdout={options.holdout:g}", *extra])
    if "rho" in overrides:
        raise ValueError("--rho cannot be given where it is chosen: use --rhos.")
    require_no_other_choice(options.rho_file, options.tasks)
    made_folder("rho_file", options.rho_file.parent)
    planner = Planner(benchmark, options, overrides)
    tasks = {task.name: task for task in benchmark.tasks}
    runs = {
        task: [planner.run(task, options.method, options.seed, rho, variant=f"rho-{rho:g}") for rho in options.rhos]
        for task in options.tasks
    }
    stock = [run.name for of_task in runs.values() for run in of_task if run.rho is None]
    if stock:
        raise ValueError(f"method {options.method!r} does not perturb, so it has no rho: use sam or sampa-0.1.")
    store = RecordStore(options.runs_dir or REPOSITORY / benchmark.folder / "rho_choice" / planner.folder_name)
    status = _run([run for of_task in runs.values() for run in of_task], store, options)
    choices = {}
    for task, of_task in runs.items():
        records = [store.read(run.name) for run in of_task]
        choices[task] = choose_rho(tasks[task], records)
        print(f"{task}: rho {choices[task].rho:g}")
    write_rho(options.rho_file, planner.settings(), choices, options)
    return status


def status_table(runs: Sequence[Run], store: RecordStore) -> str:
    """One line per task and method: finished, failed and missing seeds."""
    lines = []
    for task, method in dict.fromkeys((run.task, run.method) for run in runs):
        seeds: dict[str, list[int]] = {FINISHED: [], FAILED: [], "missing": []}
        for run in runs:
            if (run.task, run.method) == (task, method):
                record = store.read(run.name)
                seeds["missing" if record is None else record["status"]].append(run.seed)
        shown = [f"{status} {', '.join(map(str, numbers))}" for status, numbers in seeds.items() if numbers]
        lines.append(f"{task:8} {method:12} {'; '.join(shown)}")
    return "\n".join(lines)


def _parser(description: str) -> ScriptParser:
    parser = ScriptParser(description)
    parser.add_argument("--model", help="model on the Hub, or a folder; the default is the recipes' own")
    parser.add_argument("--data_dir", help="folder with the data; the default is the Hub")
    parser.add_argument("--runs_dir", type=Path, help="folder of the records; the default is named after the model")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side")
    parser.add_argument("--nproc_per_node", type=int, choices=(1, 2), default=1, help="processes for SAMPa")
    parser.add_argument("--retry_failed", action="store_true", help="do runs again that have failed before")
    parser.add_argument("--epochs", type=float, help="epochs of the baseline; adamw-2x has twice as many")
    parser.add_argument("--sharpness_examples", type=int, default=64, help="to measure sharpness on at the end; 0: no")
    parser.add_argument("--ascent_steps", type=int, default=5, help="steps to find the worst loss in the ball")
    parser.add_argument("--hessian_iterations", type=int, default=20, help="of the power iteration; 0: no eigenvalue")
    return parser


def _default_folder(benchmark: Benchmark, planner: Planner) -> Path:
    return REPOSITORY / benchmark.folder / "results" / planner.folder_name


def _run(runs: Sequence[Run], store: RecordStore, options: argparse.Namespace) -> int:
    # Asked to end, the runner ends its runs first, as after an interrupt from the keyboard.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    made_folder("runs_dir", store.folder)
    counts = MatrixRunner(runs, store, options.jobs, options.retry_failed).run()
    print(f"{counts[FINISHED]} of {len(runs)} runs finished, {counts[FAILED]} failed; records in {store.folder}")
    return 1 if counts[FAILED] else 0
