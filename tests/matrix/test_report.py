"""The report says what the records say: same bytes for the same records, numbers as SciPy has them, gaps by name."""

import os
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import scipy.stats

from hf_sam_recipes.benchmarks.cifar import CIFAR
from hf_sam_recipes.benchmarks.glue import GLUE
from hf_sam_recipes.matrix.records import RecordStore
from hf_sam_recipes.matrix.report import write_report

from ..conftest import REPOSITORY
from .made_records import GRADIENTS, SEEDS, TASKS, made_record, write_study
from .studies import write_study_file


METRIC = {"cola": "matthews_correlation", "rte": "accuracy", "qqp": "combined_score", "qnli": "accuracy"}
TITLES = {"cola": "CoLA", "rte": "RTE", "qqp": "QQP (subset)", "qnli": "QNLI (subset)"}
METHODS = list(GRADIENTS)
PINNED_MATPLOTLIB = re.search(r"^matplotlib==(\S+)", (REPOSITORY / "constraints.txt").read_text(), re.MULTILINE)[1]
GAPS = {("rte", "sam", 3), ("qqp", "sampa-0", 1), ("qqp", "sampa-0", 2), ("qqp", "sampa-0", 3)}
FAILED = {("cola", "sampa-0.1", 2)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return report_on(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def gaps(tmp_path_factory):
    return report_on(tmp_path_factory.mktemp("gaps"), GAPS, FAILED)


def report_on(folder: Path, *gaps) -> tuple[dict, str]:
    write_study_file(folder)
    records = write_study(folder / "results" / "study", *gaps)
    return records, write_report(GLUE, folder).read_text()


def table(text: str, heading: str) -> dict[str, dict[str, str]]:
    """The first table below a heading: row name -> column name -> cell."""
    lines = text.partition(f"\n### {heading}\n")[2].splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("|"))
    rows = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split(" | ")])
    header, _, *body = rows
    return {row[0]: dict(zip(header, row, strict=True)) for row in body}


def scores(records: dict, task: str, method: str) -> np.ndarray:
    keys = [(task, method, seed) for seed in SEEDS if (task, method, seed) in records]
    return np.array([100 * records[key]["train_info"]["metrics"][METRIC[task]] for key in keys])


def interval(method: np.ndarray, baseline: np.ndarray, form: str = "+.2f") -> str:
    low, high = scipy.stats.ttest_rel(method, baseline).confidence_interval(0.95)
    return f"{np.mean(method - baseline):{form}} [{low:{form}}, {high:{form}}]"


def test_scores_are_means_and_standard_errors_over_seeds(whole):
    records, text = whole
    rows = table(text, "Scores")
    assert list(rows) == ["CoLA", "QQP (subset)", "QNLI (subset)", "RTE", "average of 4"]
    for task in TASKS:
        for method in METHODS:
            values = scores(records, task, method)
            cell = f"[{values.mean():.2f} ± {scipy.stats.sem(values):.2f}](results/study/{task}/{method})"
            assert rows[TITLES[task]][method] == cell
    for method in METHODS:
        averages = np.mean([scores(records, task, method) for task in TASKS], axis=0)
        assert rows["average of 4"][method] == f"{averages.mean():.2f} ± {scipy.stats.sem(averages):.2f}"


def test_differences_have_the_interval_of_a_paired_t_test(whole):
    records, text = whole
    for baseline in ("adamw", "adamw-2x"):
        rows = table(text, f"Difference to {baseline}")
        for method in METHODS:
            if method == baseline:
                continue
            for task in TASKS:
                expected = interval(scores(records, task, method), scores(records, task, baseline))
                assert rows[TITLES[task]][method] == expected
            averages = {m: np.mean([scores(records, task, m) for task in TASKS], axis=0) for m in (method, baseline)}
            assert rows["average of 4"][method] == interval(averages[method], averages[baseline])


def test_losses_have_paired_differences_too(whole):
    records, text = whole
    rows = table(text.partition("Evaluation loss, difference to adamw:")[2].join(["\n### Here\n", ""]), "Here")
    for task in TASKS:
        losses = {
            method: np.array([records[task, method, s]["train_info"]["epochs"][-1]["eval_loss"] for s in SEEDS])
            for method in METHODS
        }
        for method in METHODS[1:]:
            assert rows[TITLES[task]][method] == interval(losses[method], losses["adamw"], "+.4f")


def test_costs_losses_and_sharpness(whole):
    records, text = whole

    def column(name, task, method):
        return np.array([name(records[task, method, seed]) for seed in SEEDS])

    for task in TASKS:
        base = column(lambda r: r["train_info"]["seconds_per_update"], task, "adamw").mean()
        for method in METHODS:
            count = 20 * GRADIENTS[method] + (1 if "sampa" in method else 0)
            assert table(text, "Gradient computations in a run")[TITLES[task]][method] == str(count)
            seconds = column(lambda r: r["train_info"]["seconds_per_update"], task, method)
            expected = f"{seconds.mean():.3f} ± {scipy.stats.sem(seconds):.3f} ({seconds.mean() / base:.2f}×)"
            assert table(text, "Seconds per update")[TITLES[task]][method] == expected
            losses = column(lambda r: r["train_info"]["epochs"][-1]["train_loss"], task, method)
            expected = f"{losses.mean():.4f} ± {scipy.stats.sem(losses):.4f}"
            assert table(text, "Losses after the last epoch")[TITLES[task]][method] == expected
            sharpness = column(lambda r: r["train_info"]["sharpness"]["sharpness"], task, method)
            expected = f"{sharpness.mean():.4f} ± {scipy.stats.sem(sharpness):.4f}"
            assert table(text, "Sharpness at the end")[TITLES[task]][method] == expected


def test_missing_cells_say_so(gaps):
    records, text = gaps
    rows, differences = table(text, "Scores"), table(text, "Difference to adamw")
    assert rows["QQP (subset)"]["sampa-0"] == "missing"
    assert differences["QQP (subset)"]["sampa-0"] == "missing"
    assert rows["average of 4"]["sampa-0"] == "missing: QQP"

    # A seed that one of the two lacks is no pair.
    assert rows["RTE"]["sam"].endswith("(results/study/rte/sam) (2 of 3 seeds)")
    pairs = scores(records, "rte", "sam"), scores(records, "rte", "adamw")[:2]
    assert differences["RTE"]["sam"] == interval(*pairs) + " (2 of 3 seeds)"
    averages = [np.mean([scores(records, task, m)[:2] for task in TASKS], axis=0) for m in ("sam", "adamw")]
    assert differences["average of 4"]["sam"] == interval(*averages) + " (2 of 3 seeds)"

    assert rows["CoLA"]["sampa-0.1"].endswith("(2 of 3 seeds; failed: seed 2)")
    assert "runs: 55 finished, 1 failed, 4 missing" in text
    assert "| cola | sampa-0.1 | 2 | `RuntimeError: out \\| of luck` |" in text


def test_numbers_over_fewer_seeds_say_so(gaps):
    records, text = gaps
    seconds = {
        method: np.array([records["rte", method, seed]["train_info"]["seconds_per_update"] for seed in (1, 2)])
        for method in ("adamw", "sam")
    }
    cell = table(text, "Seconds per update")["RTE"]["sam"]
    # The ratio is over the seeds that both have.
    assert cell.endswith(f" ({seconds['sam'].mean() / seconds['adamw'].mean():.2f}×) (2 of 3 seeds)")


def test_subsets_are_called_subsets(whole):
    rows = table(whole[1], "Data")
    assert rows["CoLA"] == {
        "task": "CoLA",
        "training examples": "8,551 (whole)",
        "evaluation examples": "1,043 (whole)",
        "rho": "0.05",
    }
    assert rows["QNLI"]["training examples"] == "8,999 of 104,743 (subset)"
    assert rows["QQP"]["evaluation examples"] == "1,000 of 40,430 (subset)"
    assert "No runs of: SST-2, MRPC, STS-B, MNLI, WNLI." in whole[1]


def test_one_seed_has_no_interval(tmp_path):
    _, text = report_on(tmp_path, {(t, m, s) for t in TASKS for m in METHODS for s in SEEDS if s > 1})
    assert table(text, "Difference to adamw")["RTE"]["sam"].endswith(" (one seed: no interval)")
    assert "±" not in table(text, "Scores")["RTE"]["sam"]


def test_a_run_that_diverged_counts_as_no_score(tmp_path):
    _, text = report_on(tmp_path)
    record = made_record("rte", "sam", 1)
    record["train_info"]["metrics"]["accuracy"] = float("nan")
    record["train_info"]["epochs"][-1]["eval_loss"] = float("nan")
    record["train_info"]["epochs"][-1]["eval_accuracy"] = float("nan")
    RecordStore(tmp_path / "results" / "study").write("rte/sam/seed-1", record)
    _, changed = report_on_existing(tmp_path)
    assert table(changed, "Scores")["RTE"]["sam"].endswith("(2 of 3 seeds; not finite: seed 1)")
    assert table(changed, "Scores")["RTE"]["sampa-0"] == table(text, "Scores")["RTE"]["sampa-0"]


def report_on_existing(folder: Path) -> tuple[None, str]:
    return None, write_report(GLUE, folder).read_text()


def test_the_same_records_give_the_same_bytes_anywhere(tmp_path):
    folders = [tmp_path / "one", tmp_path / "two"]
    (tmp_path / "matplotlibrc").write_text("figure.facecolor: red\nfont.size: 20\n")
    environments = [
        {"PYTHONHASHSEED": "1", "LC_ALL": "C.UTF-8"},
        {"PYTHONHASHSEED": "2", "MATPLOTLIBRC": str(tmp_path / "matplotlibrc"), "TZ": "Asia/Tokyo"},
    ]
    written = []
    for folder, environment in zip(folders, environments, strict=True):
        write_study_file(folder)
        write_study(folder / "results" / "study", GAPS, FAILED)
        command = [sys.executable, str(REPOSITORY / "glue_runs" / "report.py"), "--folder", str(folder)]
        subprocess.run(command, cwd=tmp_path, env={**os.environ, **environment}, check=True)
        written.append(
            {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.suffix in (".md", ".png")}
        )
    assert written[0] == written[1]
    assert len(written[0]) == 5
    for path, content in written[0].items():
        if path.suffix == ".png":
            assert chunks(content) <= {"IHDR", "pHYs", "IDAT", "IEND"}


def chunks(png: bytes) -> set[str]:
    """Kinds of the chunks of a PNG: text and dates would be tEXt, iTXt and tIME."""
    kinds, position = set(), 8
    while position < len(png):
        (length,) = struct.unpack(">I", png[position : position + 4])
        kinds.add(png[position + 4 : position + 8].decode())
        position += 12 + length
    return kinds


@pytest.mark.parametrize("benchmark", [GLUE, CIFAR], ids=lambda benchmark: benchmark.title)
def test_the_committed_report_is_that_of_the_committed_records(benchmark, tmp_path):
    """The plots as well, with the version of matplotlib that has drawn them."""
    committed = REPOSITORY / benchmark.folder
    ignore = shutil.ignore_patterns(".scratch", "README.md", "plots")
    shutil.copytree(committed, tmp_path, ignore=ignore, dirs_exist_ok=True)
    assert write_report(benchmark, tmp_path).read_text() == (committed / "README.md").read_text()
    drawn, there = ({path.name: path for path in (f / "plots").glob("*.png")} for f in (tmp_path, committed))
    assert drawn.keys() == there.keys()
    if matplotlib.__version__ == PINNED_MATPLOTLIB:
        assert all(drawn[name].read_bytes() == there[name].read_bytes() for name in drawn)


def test_two_studies_stand_side_by_side(tmp_path):
    """Each cell is the score, and the difference to the baseline of its own study."""
    for name in ("clean", "noise"):
        write_study_file(tmp_path, name)
    studies = {"clean": write_study(tmp_path / "results" / "clean")}
    without = {(task, "adamw-2x", seed) for task in TASKS for seed in SEEDS}
    studies["noise"] = write_study(tmp_path / "results" / "noise", {("rte", "sam", 2), *without})
    _, text = report_on_existing(tmp_path)
    lines = text.partition("## All studies\n\n")[2].partition("\n\n")[0].splitlines()
    header, _, *rows = ([cell.strip() for cell in line.strip("|").split(" | ")] for line in lines)
    assert header == ["study", "task", *METHODS]
    cells = {(row[0], row[1]): dict(zip(header, row, strict=True)) for row in rows}
    assert len(cells) == 2 * len(TASKS)
    for study, records in studies.items():
        reference = scores(records, "cola", "adamw")
        sam = scores(records, "cola", "sam")
        expected = f"{sam.mean():.2f} ± {scipy.stats.sem(sam):.2f}; {interval(sam, reference)}"
        assert cells[study, "CoLA"]["sam"] == expected
        assert cells[study, "CoLA"]["adamw"] == f"{reference.mean():.2f} ± {scipy.stats.sem(reference):.2f}"
    assert cells["noise", "RTE"]["sam"].endswith("(2 of 3 seeds)")
    assert cells["noise", "RTE"]["adamw-2x"] == "missing"
    assert "No runs of: SST-2, MRPC, STS-B, MNLI, WNLI, `adamw-2x`." in text.partition("## noise\n")[2]


def test_runs_with_other_settings_are_refused(tmp_path):
    write_study_file(tmp_path)
    write_study(tmp_path / "results" / "study")
    record = made_record("rte", "sam", 1)
    record["meta_info"]["settings"]["model"] = "other"
    RecordStore(tmp_path / "results" / "study").write("rte/sam/seed-1", record)
    with pytest.raises(ValueError, match="different settings"):
        report_on_existing(tmp_path)


def test_records_without_a_study_are_refused(tmp_path):
    write_study_file(tmp_path, "studie")
    write_study(tmp_path / "results" / "study")
    with pytest.raises(ValueError, match=r"study 'study': did you mean 'studie'\?"):
        report_on_existing(tmp_path)


def test_a_study_without_records_is_announced(tmp_path):
    write_study_file(tmp_path, "later", question="And then?", notes="- Soon.")
    _, text = report_on(tmp_path)
    section = text.partition("## later\n")[2]
    for part in ("And then?", "python glue_runs/run.py later", "- Soon.", "No runs yet"):
        assert part in section
    assert "## All studies" not in text


def test_the_report_begins_with_what_was_found(whole):
    records, text = whole
    first = text.splitlines()[2]
    assert first.startswith("- [A study](#study): at equal gradients, against `adamw-2x`: `sam` ")
    better, worse = 0, 0
    for task in TASKS:
        pair = scores(records, task, "sam"), scores(records, task, "adamw-2x")
        low, high = scipy.stats.ttest_rel(*pair).confidence_interval(0.95)
        better, worse = better + (low > 0), worse + (high < 0)
    averages = [np.mean([scores(records, task, m) for task in TASKS], axis=0) for m in ("sam", "adamw-2x")]
    found = f"`sam` {interval(*averages)} (by task: {better} better, {worse} worse, {4 - better - worse} undecided)"
    assert found in first
    assert table(text, "Difference at equal gradients")["average of 4"]["sam"] == interval(*averages)


def test_equal_cost_is_that_of_the_nearest_stock_run(tmp_path):
    """SAM takes as many gradients as `adamw-2x`, but here as few seconds as `adamw`; SAMPa-0 takes neither."""
    records = write_study(tmp_path / "results" / "study")
    seconds = {"adamw": 10.0, "adamw-2x": 20.0, "sam": 11.0, "sampa-0": 30.0, "sampa-0.1": 19.0}
    for (task, method, seed), record in records.items():
        record["train_info"]["train_seconds"] = seconds[method]
        RecordStore(tmp_path / "results" / "study").write(f"{task}/{method}/seed-{seed}", record)
    write_study_file(tmp_path)
    _, text = report_on_existing(tmp_path)
    cells = table(text, "Difference at equal seconds")["CoLA"]
    assert cells["sampa-0"] == "missing"
    for method, other, ratio in (("sam", "adamw", "1.10"), ("sampa-0.1", "adamw-2x", "0.95")):
        expected = interval(scores(records, "cola", method), scores(records, "cola", other))
        assert cells[method] == f"{expected} to {other} ({ratio}×)"
    assert set(cells) == {"task", "sam", "sampa-0", "sampa-0.1"}


def test_early_stopping_reads_the_metric_where_the_held_out_one_is_best(tmp_path):
    records = write_study(tmp_path / "results" / "study")
    for (task, method, seed), record in records.items():
        for place, epoch in enumerate(record["train_info"]["epochs"]):
            # The first epoch is best for odd seeds; for even ones the metrics are equal, and the loss decides.
            epoch[f"eval_holdout_{METRIC[task]}"] = 0.5 - place * (seed % 2) * 0.1
            epoch["eval_holdout_loss"] = 1.0 - place * 0.5
            epoch["eval_ece"] = 0.25 + 0.1 * place
        RecordStore(tmp_path / "results" / "study").write(f"{task}/{method}/seed-{seed}", record)
    write_study_file(tmp_path)
    _, text = report_on_existing(tmp_path)
    stopped = {
        method: np.array(
            [
                100 * records["rte", method, seed]["train_info"]["epochs"][0 if seed % 2 else 1]["eval_accuracy"]
                for seed in SEEDS
            ]
        )
        for method in ("adamw", "sam")
    }
    expected = f"{stopped['sam'].mean():.2f} ± {scipy.stats.sem(stopped['sam']):.2f}"
    assert table(text, "Scores with early stopping")["RTE"]["sam"] == expected
    after = text.partition("Difference to adamw, which is stopped early too:")[2]
    assert table(f"\n### Here\n{after}", "Here")["RTE"]["sam"] == interval(stopped["sam"], stopped["adamw"])
    after = text.partition("Expected calibration error, 15 bins of confidence:")[2]
    assert table(f"\n### Here\n{after}", "Here")["RTE"]["sam"] == "0.3500 ± 0.0000"


def test_what_was_tried_stands_beside_what_was_chosen(tmp_path):
    choice = {"option": "rho", "values": [0.02, 0.1], "with": "sam", "for": ["sam"], "options": {"holdout": 0.1}}
    write_study_file(tmp_path, choose=[choice])
    write_study(tmp_path / "results" / "study")
    for value, loss in (("0.02", 0.5), ("0.1", 0.25)):
        record = made_record("rte", "sam", 1)
        record["train_info"]["metrics"] = {"accuracy": 0.75, "loss": loss}
        RecordStore(tmp_path / "choices" / "study" / "sam").write(f"rte/rho-{value}/seed-1", record)
    _, text = report_on_existing(tmp_path)
    row = {"task": "RTE", "0.02": "75.00 (0.5000)", "0.1": "**75.00 (0.2500)**"}
    assert table(text, "Choice of rho for sam") == {"RTE": row}
