"""The report: tables and plots made of the records, and of nothing else."""

import shutil
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from .. import REPOSITORY
from ..common.calibration import BINS
from ..common.folders import existing_folder, refuse_folders
from ..common.mappings import NO_VALUE
from ..common.parser import ScriptParser
from . import tables
from .benchmark import Benchmark
from .equal_cost import GRADIENTS, SECONDS, equal_cost_table, finding
from .plots import PLOTS, draw_plots
from .records import FAILED, FINISHED
from .study import Study, cost, last_epoch, sharpness, top_eigenvalue, unconverged
from .study_file import RESULTS, STUDIES, Options, find_study


FIGURES = "plots"


def report_main(benchmark: Benchmark, args: Sequence[str] | None = None) -> int:
    """Write `README.md` and the plots of a benchmark. Returns the exit status."""
    folder = REPOSITORY / benchmark.folder
    parser = ScriptParser(f"Report on {benchmark.title} from studies and records alone.")
    parser.add_argument("--folder", type=Path, default=folder, help="holds studies/, results/; gets README.md, plots/")
    options = parser.parse_args(args)
    print(f"wrote {write_report(benchmark, existing_folder('folder', options.folder))}")
    return 0


def write_report(benchmark: Benchmark, folder: Path) -> Path:
    """
    Write `folder/README.md` and `folder/plots/*.png` from the studies in `folder/studies/` and the records in
    `folder/results/<study>/`. The same files give the same bytes, wherever the folder lies.

    Raises:
        `ValueError`: a study is broken or not there, or has records with other settings or a file that is no record.
    """
    names = {path.stem for path in (folder / STUDIES).glob("*.yaml")}
    names |= {path.name for path in (folder / RESULTS).glob("*") if path.is_dir()}
    studies = [Study(benchmark, find_study(folder / STUDIES, name), folder) for name in sorted(names)]
    there, to_come = ([study for study in studies if bool(study.records) is has] for has in (True, False))
    figures, path = folder / FIGURES, folder / "README.md"
    refuse_folders("folder", folder, [path.name])
    if figures.exists() and not figures.is_dir():
        raise ValueError(f"{figures}: must be a folder for the plots; move this file away.")
    parts = [f"# {benchmark.title}: results"]
    if there:
        parts.append("\n".join(f"- [{study.file.title}](#{study.name}): {finding(study)}" for study in there))
    parts.append(_introduction(benchmark))
    if len(there) > 1:
        parts += ["## All studies", tables.overview_table(there)]
    # Drawn aside: what is there goes when all of the new is made.
    with tempfile.TemporaryDirectory() as drawn:
        parts += [_section(study, Path(drawn)) for study in there]
        for study in to_come:
            parts += [f"## {study.name}", _question(study), f"No runs yet: `{RESULTS}/{study.name}/` has no records."]
        for old in figures.glob("*.png"):
            old.unlink()
        if there:
            shutil.copytree(drawn, figures, dirs_exist_ok=True)
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return path


def _introduction(benchmark: Benchmark) -> str:
    lines = [
        f"Written by `python {benchmark.folder}/report.py` from the studies in `{STUDIES}/` and the records in "
        f"`{RESULTS}/`, one JSON file per run: `{RESULTS}/<study>/<task>/<method>/seed-<n>.json`, with the command, "
        "the commit and the machine. Each score links to the records that it is made of. Do not edit: run `report.py` "
        "again. The command below each study repeats it, with `--model` and `--data_dir` "
        "where they are not to come from the Hub.",
        "",
        "- Scores are in per cent, mean ± standard error over seeds. All methods of a seed start from the same "
        "weights and see the same training examples, so seeds are paired.",
        "- Differences are means over seeds of the difference to another method with the same seed, with the 95% "
        "interval of Student's t. An interval that contains 0 does not show an effect: undecided. Of twenty intervals "
        "without any effect behind them, one is expected not to contain 0. They are about other seeds, not about "
        "other evaluation examples.",
        "- `adamw-2x` trains for twice the epochs: as many gradients as SAM.",
        "- Average: over the tasks, for each seed; then as above.",
    ]
    return "\n".join(lines)


def _question(study: Study) -> str:
    command = f"```bash\npython {study.benchmark.folder}/run.py {study.name}\n```"
    parts = [f"**{study.file.title}.** {study.file.question}", command, study.file.notes.strip()]
    return "\n\n".join(part for part in parts if part)


def _section(study: Study, figures: Path) -> str:
    def link(task, method):
        return f"{RESULTS}/{study.name}/{task.name}/{method}"

    parts = [f"## {study.name}", _question(study), _settings(study)]
    absent = [task.title for task in study.absent_tasks] + [f"`{method}`" for method in study.absent_methods]
    if absent:
        parts.append(f"No runs of: {', '.join(absent)}.")
    parts += ["### Data", tables.data_table(study)]
    for chooser, choice in study.file.choices():
        parts.append(f"### Choice of {choice.option} for {', '.join(choice.methods)}")
        if chooser.name != study.name:
            parts.append(f"As in [{chooser.name}](#{chooser.name}).")
            continue
        parts.append(
            f"With `{choice.method}`, seed {choice.seed}, on held-out training examples: the metric (and the loss), "
            f"what was chosen in bold. Records in `{choice.records}/`."
        )
        parts.append(tables.choice_table(study, choice))
    parts += ["### Scores", tables.score_table(study, link)]
    for other in [study.baseline, *(m for m in study.methods if m == study.benchmark.equal_compute)]:
        parts += [f"### Difference to {other}", tables.difference_table(study, other)]
    parts += _equal_cost(study) + _early_stopping(study)
    loss = last_epoch("eval_loss")
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
        tables.number_table(study, loss, "{:.4f}"),
        f"Evaluation loss, difference to {study.baseline}:",
        tables.difference_table(study, study.baseline, partial(study.values, value=loss), "{:+.4f}", average=False),
        *_calibration(study),
        *_sharpness(study),
        "### Plots",
    ]
    for name, file in draw_plots(study, figures).items():
        parts.append(f"{PLOTS[name]}\n\n![{name}]({FIGURES}/{file.name})")
    failures = tables.failure_table(study)
    if failures:
        parts += ["### Failed runs", failures]
    return "\n\n".join(parts)


def _equal_cost(study: Study) -> list[str]:
    parts = []
    for name, value in (("gradients", GRADIENTS), ("seconds", SECONDS)):
        table = equal_cost_table(study, value)
        if table:
            parts += [f"### Difference at equal {name}", table]
    return parts and [*parts, "To the stock run whose cost is nearest, and the ratio of the costs."]


def _early_stopping(study: Study) -> list[str]:
    """Where the records have it."""
    if not any(study.stopped_early(task, method) for task in study.tasks for method in study.methods):
        return []
    return [
        "### Scores with early stopping",
        "After the epoch whose metric on held-out training examples is best: what stopping early would have given.",
        tables.score_table(study, scores=study.stopped_early),
        f"Difference to {study.baseline}, which is stopped early too:",
        tables.difference_table(study, study.baseline, study.stopped_early),
    ]


def _calibration(study: Study) -> list[str]:
    """Where the records have it."""
    error = last_epoch("eval_ece")
    if not any(study.values(task, method, error) for task in study.tasks for method in study.methods):
        return []
    return [f"Expected calibration error, {BINS} bins of confidence:", tables.number_table(study, error, "{:.4f}")]


def _settings(study: Study) -> str:
    file = study.file
    epochs = "epochs of the recipe" if file.epochs is None else f"{file.epochs:g} epochs"
    own = {"options": file.options} | {f"of {name}": own for name, own in (file.tasks | file.methods).items() if own}
    seeds = ", ".join(map(str, study.seeds))
    failed = sum(record["status"] == FAILED for record in study.records)
    planned = len(file.tasks) * len(file.methods) * len(file.seeds)
    counts = f"{len(study.records) - failed} finished, {failed} failed, {planned - len(study.records)} missing"
    dates = sorted(record["run_info"]["date"][:10] for record in study.records)
    commits = sorted({str(record["run_info"]["git_commit"])[:10] for record in study.records})
    changed = any(record["run_info"]["uncommitted_changes"] for record in study.records)
    lines = [
        f"- model: {file.model_name}",
        *(f"- {of}: {_shown(options, [epochs] * (of == 'options'))}" for of, options in own.items()),
        f"- seeds: {seeds}; runs: {counts}",
        f"- dates: {dates[0]} to {dates[-1]}; commits: {', '.join(commits)}{' (with changes)' if changed else ''}",
    ]
    lines += [f"- versions: {text}" for text in study.meta(_versions)]
    lines += [f"- hardware: {text}" for text in study.meta(_hardware)]
    return "\n".join(lines)


def _shown(options: Options, first: list[str]) -> str:
    shown = [f"{name} {value}" for name, value in sorted(options.items()) if value not in NO_VALUE]
    return ", ".join(first + shown)


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
