"""The report: tables and plots made of the records, and of nothing else."""

from collections.abc import Sequence
from pathlib import Path

from .. import REPOSITORY
from ..common.folders import existing_folder
from ..common.parser import ScriptParser
from . import tables
from .benchmark import Benchmark
from .plots import PLOTS, draw_plots
from .records import FAILED, FINISHED
from .study import Study, cost, last_epoch, sharpness, top_eigenvalue, unconverged


RESULTS, FIGURES = "results", "plots"


def report_main(benchmark: Benchmark, args: Sequence[str] | None = None) -> int:
    """Write `README.md` and the plots of a benchmark. Returns the exit status."""
    folder = REPOSITORY / benchmark.folder
    parser = ScriptParser(f"Report on {benchmark.title} from the records alone.")
    parser.add_argument("--folder", type=Path, default=folder, help="holds results/, gets README.md and plots/")
    options = parser.parse_args(args)
    print(f"wrote {write_report(benchmark, existing_folder('folder', options.folder))}")
    return 0


def write_report(benchmark: Benchmark, folder: Path) -> Path:
    """
    Write `folder/README.md` and `folder/plots/*.png` from the records in `folder/results/<study>/`. The same records
    give the same bytes, wherever the folder lies.

    Raises:
        `ValueError`: a study mixes runs with different settings, or holds a file that is no record.
    """
    results = folder / RESULTS
    folders = sorted(path for path in results.glob("*") if path.is_dir())
    studies = [study for study in (Study(benchmark, path) for path in folders) if study.records]
    figures = folder / FIGURES
    for old in figures.glob("*.png"):
        old.unlink()
    parts = [_introduction(benchmark)]
    if len(studies) > 1:
        parts += ["## All studies", tables.overview_table(studies)]
    parts += [_section(study, figures) for study in studies]
    if not studies:
        parts.append(f"No runs yet: `{RESULTS}/` has no records. `python {benchmark.folder}/run.py` makes them.")
    path = folder / "README.md"
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return path


def _introduction(benchmark: Benchmark) -> str:
    lines = [
        f"# {benchmark.title}: results",
        "",
        f"Written by `python {benchmark.folder}/report.py` from the records in `{RESULTS}/`, one JSON file per run: "
        f"`{RESULTS}/<study>/<task>/<method>/seed-<n>.json`, with the command, the commit and the machine. Each score "
        "links to the records that it is made of. Do not edit: run `report.py` again.",
        "",
        "- Scores are in per cent, mean ± standard error over seeds. All methods of a seed start from the same "
        "weights and see the same training examples, so seeds are paired.",
        "- Differences are means over seeds of the difference to another method with the same seed, with the 95% "
        "interval of Student's t. An interval that contains 0 does not show an effect; and of twenty intervals "
        "without any effect behind them, one is expected not to contain 0. They are about other seeds, not about "
        "other evaluation examples.",
        "- `adamw-2x` trains for twice the epochs: as many gradients as SAM.",
        "- Average: over the tasks, for each seed; then as above.",
        *(f"- {note}" for note in benchmark.notes),
    ]
    return "\n".join(lines)


def _section(study: Study, figures: Path) -> str:
    def link(task, method):
        return f"{RESULTS}/{study.name}/{task.name}/{method}"

    parts = [f"## {study.name}", _settings(study)]
    absent = [task.title for task in study.absent_tasks] + [f"`{method}`" for method in study.absent_methods]
    if absent:
        parts.append(f"No runs of: {', '.join(absent)}.")
    parts += ["### Data", tables.data_table(study)]
    parts += ["### Scores", tables.score_table(study, link)]
    for other in [study.benchmark.baseline, *(m for m in study.methods if m == study.benchmark.equal_compute)]:
        parts += [f"### Difference to {other}", tables.difference_table(study, other)]
    parts += [
        "### Gradient computations in a run",
        "Forward and backward passes over a micro-batch, counted, of all processes together. What the two ranks of a "
        "pair compute twice counts twice.",
        tables.cost_table(study),
        "### Seconds per update",
        "Median within a run, mean ± standard error over seeds, ratio to AdamW. Runs that shared a machine with "
        "others share its speed too.",
        tables.number_table(study, cost("seconds_per_update"), "{:.3f}", relative=True),
        "### Peak memory in MiB",
        f"Of: {'; '.join(study.meta(lambda record: record['train_info']['peak_memory_of']))}.",
        tables.number_table(study, lambda r: r["train_info"]["peak_memory_bytes"] / 2**20, "{:.0f}", relative=True),
        "### Losses after the last epoch",
        "Training loss, at unperturbed weights, mean over the epoch:",
        tables.number_table(study, last_epoch("train_loss"), "{:.4f}"),
        "Evaluation loss:",
        tables.number_table(study, last_epoch("eval_loss"), "{:.4f}"),
        f"Evaluation loss, difference to {study.benchmark.baseline}:",
        tables.value_difference_table(study, last_epoch("eval_loss")),
        *_sharpness(study),
        "### Plots",
    ]
    for name, file in draw_plots(study, figures).items():
        parts.append(f"{PLOTS[name]}\n\n![{name}]({FIGURES}/{file.name})")
    failures = tables.failure_table(study)
    if failures:
        parts += ["### Failed runs", failures]
    return "\n\n".join(parts)


def _settings(study: Study) -> str:
    settings = study.records[0]["meta_info"]["settings"]
    options = ", ".join(f"{name} {value}" for name, value in settings["options"].items())
    epochs = "epochs of the recipe" if settings["epochs"] is None else f"{settings['epochs']:g} epochs"
    seeds = ", ".join(map(str, study.seeds))
    failed = sum(record["status"] == FAILED for record in study.records)
    planned = len(study.tasks) * len(study.methods) * len(study.seeds)
    counts = f"{len(study.records) - failed} finished, {failed} failed, {planned - len(study.records)} missing"
    dates = sorted(record["run_info"]["date"][:10] for record in study.records)
    commits = sorted({str(record["run_info"]["git_commit"])[:10] for record in study.records})
    changed = any(record["run_info"]["uncommitted_changes"] for record in study.records)
    lines = [
        f"- model: {settings['model']}",
        f"- options: {epochs}{', ' if options else ''}{options}",
        f"- seeds: {seeds}; runs: {counts}",
        f"- dates: {dates[0]} to {dates[-1]}; commits: {', '.join(commits)}{' (with changes)' if changed else ''}",
    ]
    lines += [f"- versions: {text}" for text in study.meta(_versions)]
    lines += [f"- hardware: {text}" for text in study.meta(_hardware)]
    return "\n".join(lines)


def _versions(record) -> str:
    return ", ".join(f"{name} {version}" for name, version in record["meta_info"]["versions"].items())


def _hardware(record) -> str:
    hardware, side_by_side = record["meta_info"]["hardware"], record["run_info"]["jobs_side_by_side"]
    where = ", ".join(hardware["gpus"]) or f"{hardware['processor']}, {hardware['threads']} thread(s) a process"
    processes = record["meta_info"]["processes"]
    return f"{where}; {processes} process(es) a run, {side_by_side} run(s) side by side"


def _sharpness(study: Study) -> list[str]:
    settings = study.records[0]["meta_info"]["settings"]
    measured = [
        record["train_info"]["sharpness"]
        for task in study.tasks
        for m in study.methods
        for record in study.finished(task, m)
        if record["train_info"]["sharpness"]
    ]
    if not measured:
        return []
    precisions = sorted({found.get("precision", "the precision of training") for found in measured})
    parts = [
        "### Sharpness at the end",
        f"Rise of the loss to the worst point within {measured[0]['rho']:g} of the weights that "
        f"{settings['ascent_steps']} ascent steps find, on {settings['sharpness_examples']} training examples, the "
        f"same ball for every method, computed in {', '.join(precisions)}:",
        tables.number_table(study, sharpness, "{:.4f}"),
    ]
    if settings["hessian_iterations"]:
        moving = sum(unconverged(record) for record in study.records if record["status"] == FINISHED)
        parts += [
            "Eigenvalue of largest magnitude of the Hessian on the same examples; negative where the steepest "
            f"curvature is downwards. At most {settings['hessian_iterations']} steps of the power iteration, after "
            f"which {moving} of {len(measured)} values still changed by more than 1%:",
            tables.number_table(study, top_eigenvalue, "{:.2f}"),
        ]
    return parts
