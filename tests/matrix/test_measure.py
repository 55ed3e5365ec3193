"""Real training runs of the real recipe: measured right, and not changed by being measured."""

import copy
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

import run_glue
from hf_sam.diagnostics import worst_case_sharpness
from hf_sam_recipes.benchmarks.glue import GLUE
from hf_sam_recipes.common.calibration import expected_calibration_error
from hf_sam_recipes.matrix.command_line import run_main
from hf_sam_recipes.matrix.measure import train_and_measure
from hf_sam_recipes.matrix.report import write_report
from hf_sam_recipes.matrix.study import Study
from hf_sam_recipes.matrix.study_file import read_study
from hf_sam_recipes.matrix.tables import failure_table

from ..command_lines import later_wins
from ..conftest import REPOSITORY
from ..recipes import made_glue
from .studies import write_study_file


EPOCHS, UPDATES = 2, 6  # 24 examples in batches of 8


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    made_glue.write_parquet(folder / "data", "cola")
    (folder / "tiny").mkdir()
    made_glue.write_model(folder / "tiny", dropout=0.1)
    return folder


def recipe_args(made: Path, method: str, output: Path, task: str = "cola") -> list[str]:
    return [
        str(REPOSITORY / f"recipes/glue/{task}/{method}.yaml"),
        f"--model_name_or_path={made / 'tiny'}",
        f"--data_dir={made / 'data'}",
        f"--output_dir={output}",
        f"--num_train_epochs={EPOCHS}",
        "--per_device_train_batch_size=8",
        "--learning_rate=1e-3",
        "--seed=3",
        "--save_strategy=no",
        "--logging_strategy=epoch",
        "--report_to=none",
    ]


@pytest.fixture(scope="module")
def measured(made, tmp_path_factory):
    """Measurements of one run per method."""
    folder = tmp_path_factory.mktemp("measured")
    methods = ("adamw", "sam", "sampa-0.1")
    return {m: train_and_measure(run_glue, recipe_args(made, m, folder / m), 10, 3, 4) for m in methods}, folder


def test_gradients_are_counted(measured):
    counts = {method: result["train_info"]["gradient_computations"] for method, result in measured[0].items()}
    # SAMPa computes its first lookahead gradient once.
    assert counts == {"adamw": UPDATES, "sam": 2 * UPDATES, "sampa-0.1": 2 * UPDATES + 1}
    assert all(result["train_info"]["updates"] == UPDATES for result in measured[0].values())


@pytest.mark.parametrize("method", ["adamw", "sam", "sampa-0.1"])
def test_measuring_changes_nothing(method, measured, made, tmp_path):
    results, folder = measured
    metrics = run_glue.main(recipe_args(made, method, tmp_path))
    measured_metrics = results[method]["train_info"]["metrics"]
    assert measured_metrics.keys() - {"ece"} == {"loss", "matthews_correlation"}
    for name in ("loss", "matthews_correlation"):
        assert metrics[f"eval_{name}"] == measured_metrics[name]
    weights = [transformers.AutoModelForSequenceClassification.from_pretrained(f) for f in (folder / method, tmp_path)]
    for one, other in zip(*(model.parameters() for model in weights), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("method", ["adamw", "sam"])
def test_epochs_are_those_of_the_trainer(method, measured):
    results, folder = measured
    info = results[method]["train_info"]
    history = json.loads((folder / method / "trainer_state.json").read_text())["log_history"]
    logged = [log["loss"] for log in history if "loss" in log]
    evaluated = [log["eval_loss"] for log in history if "eval_loss" in log]
    assert [epoch["epoch"] for epoch in info["epochs"]] == [1.0, 2.0]
    assert [epoch["updates"] for epoch in info["epochs"]] == [UPDATES // 2, UPDATES]
    assert [epoch["train_loss"] for epoch in info["epochs"]] == logged
    assert [epoch["eval_loss"] for epoch in info["epochs"]] == evaluated
    assert info["metrics"]["loss"] == evaluated[-1]
    assert all(("sam/sharpness" in epoch) == (method == "sam") for epoch in info["epochs"])


def test_the_mismatched_split_is_not_taken_for_the_matched_one(made, tmp_path):
    made_glue.write_parquet(tmp_path / "data", "mnli")
    args = [*recipe_args(made, "adamw", tmp_path / "out", task="mnli"), f"--data_dir={tmp_path / 'data'}"]
    info = train_and_measure(run_glue, later_wins(args), 0, 0, 0)["train_info"]
    metrics, last = info["metrics"], info["epochs"][-1]
    assert metrics["loss"] != metrics["loss_mm"]
    assert (last["eval_loss"], last["eval_accuracy"]) == (metrics["loss"], metrics["accuracy"])
    assert (last["eval_mm_loss"], last["eval_mm_accuracy"]) == (metrics["loss_mm"], metrics["accuracy_mm"])


def test_micro_batches_count(made, tmp_path):
    args = [*recipe_args(made, "sam", tmp_path), "--per_device_train_batch_size=4", "--gradient_accumulation_steps=2"]
    info = train_and_measure(run_glue, later_wins(args), 0, 0, 0)["train_info"]
    assert (info["updates"], info["gradient_computations"]) == (UPDATES, 2 * 2 * UPDATES)


def test_times_add_up(measured):
    for result in measured[0].values():
        info = result["train_info"]
        seconds = [epoch["train_seconds"] for epoch in info["epochs"]]
        assert 0 < seconds[0] < seconds[1] == info["train_seconds"]
        assert 0 < info["seconds_per_update"] < info["train_seconds"]
        assert info["peak_memory_bytes"] > 2**26


def test_sharpness_is_that_of_the_final_weights_on_training_examples(measured, made):
    results, folder = measured
    found = results["sam"]["train_info"]["sharpness"]
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder / "sam")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "sam")
    table = made_glue.examples("cola", "train").to_dict("records")
    chosen = np.sort(np.random.default_rng(0).choice(len(table), size=10, replace=False))
    rows = [table[index] for index in chosen]
    batches = []
    for part in (rows[:8], rows[8:]):
        batch = tokenizer([row["sentence"] for row in part], padding=True, return_tensors="pt")
        batches.append({**batch, "labels": torch.tensor([row["label"] for row in part])})
    again = worst_case_sharpness(copy.deepcopy(model), batches, rho=0.05, steps=3)
    assert found["examples"] == 10
    assert found["loss"] == pytest.approx(again.loss, rel=1e-5)
    assert found["worst_loss"] == pytest.approx(again.worst_loss, rel=1e-5)
    assert found["top_eigenvalue"]["iterations"] <= 4
    assert math.isfinite(found["top_eigenvalue"]["value"])


def test_sharpness_is_not_rounded_to_the_precision_of_training(made, tmp_path):
    args = [*recipe_args(made, "sam", tmp_path), "--bf16=true", "--use_cpu=true"]
    found = train_and_measure(run_glue, later_wins(args), 8, 3, 0)["train_info"]["sharpness"]
    model = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    table = made_glue.examples("cola", "train").to_dict("records")
    rows = [table[index] for index in np.sort(np.random.default_rng(0).choice(len(table), size=8, replace=False))]
    batch = tokenizer([row["sentence"] for row in rows], padding=True, return_tensors="pt")
    batch = {**batch, "labels": torch.tensor([row["label"] for row in rows])}
    again = worst_case_sharpness(model, [batch], rho=0.05, steps=3)
    assert found["precision"] == "float32"
    assert found["loss"] == pytest.approx(again.loss, rel=1e-5)
    assert found["sharpness"] == pytest.approx(again.sharpness, rel=1e-4)


def evaluated_again(folder: Path, rows: list[dict]) -> tuple[np.ndarray, np.ndarray]:
    """Logits of shape `(n, 2)` and labels of shape `(n,)`."""
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    batch = transformers.AutoTokenizer.from_pretrained(folder)(
        [row["sentence"] for row in rows], padding=True, return_tensors="pt"
    )
    with torch.no_grad():
        return model.eval()(**batch).logits.numpy(), np.array([row["label"] for row in rows])


def test_calibration_is_that_of_the_final_weights(measured):
    results, folder = measured
    logits, labels = evaluated_again(folder / "sam", made_glue.examples("cola", "validation").to_dict("records"))
    expected = expected_calibration_error(logits, labels)
    info = results["sam"]["train_info"]
    assert info["metrics"]["ece"] == pytest.approx(expected, abs=1e-5)
    assert info["epochs"][-1]["eval_ece"] == info["metrics"]["ece"]


def test_held_out_training_examples_are_evaluated_beside(made, tmp_path):
    options = ["--holdout=6", "--holdout_beside=true", "--eval_epochs=2", "--num_train_epochs=3"]
    result = train_and_measure(run_glue, later_wins([*recipe_args(made, "sam", tmp_path), *options]), 0, 0, 0)
    data, info = result["meta_info"]["data"], result["train_info"]
    assert data == {"train_samples": 18, "eval_samples": {"eval_samples": 13, "eval_samples_holdout": 6}}
    # After the second epoch, and after the last one.
    assert [epoch["epoch"] for epoch in info["epochs"]] == [2.0, 3.0]
    assert [epoch["gradient_computations"] for epoch in info["epochs"]] == [2 * 2 * 3, 3 * 2 * 3]
    last = info["epochs"][-1]
    for name in ("loss", "matthews_correlation", "ece"):
        assert last[f"eval_{name}"] == info["metrics"][name]
        assert last[f"eval_holdout_{name}"] == info["metrics"][f"{name}_holdout"]
    table = made_glue.examples("cola", "train").to_dict("records")
    held_out = np.sort(np.random.default_rng(3).permutation(len(table))[:6])
    logits, labels = evaluated_again(tmp_path, [table[index] for index in held_out])
    loss = torch.nn.functional.cross_entropy(torch.tensor(logits), torch.tensor(labels))
    assert last["eval_holdout_loss"] == pytest.approx(loss.item(), rel=1e-5)


def test_regression_has_no_calibration(made, tmp_path):
    made_glue.write_parquet(tmp_path / "data", "stsb")
    args = [*recipe_args(made, "adamw", tmp_path / "out", task="stsb"), f"--data_dir={tmp_path / 'data'}"]
    assert "ece" not in train_and_measure(run_glue, later_wins(args), 0, 0, 0)["train_info"]["metrics"]


def test_a_failure_of_two_ranks_is_recorded_with_its_error(made, tmp_path):
    path = write_study_file(
        tmp_path, tasks=["cola"], methods=["sampa-0"], seeds=[1], options={"label_noise": 7}, nproc_per_node=2
    )
    command = [str(path), "--model", str(made / "tiny"), "--data_dir", str(made / "data"), "--folder", str(tmp_path)]
    assert run_main(GLUE, command) == 1
    record = json.loads((tmp_path / "results/study/cola/sampa-0/seed-1.json").read_text())
    assert "error: label_noise=7.0: must be from 0 to 1." in record["error"].splitlines()
    shown = failure_table(Study(GLUE, read_study(path), tmp_path))
    assert "| cola | sampa-0 | 1 | `error: label_noise=7.0: must be from 0 to 1.` |" in shown


def test_what_is_chosen_on_held_out_examples_is_used(made, tmp_path, capsys):
    rates = {"option": "learning_rate", "values": ["1e-4", "1e-2"], "with": "adamw", "for": ["adamw"]}
    rhos = {"option": "rho", "values": [0.02, 0.1], "with": "sam", "for": ["sampa-0"]}
    path = write_study_file(
        tmp_path,
        tasks=["cola"],
        methods=["adamw", "sam", "sampa-0"],
        seeds=[1, 4],
        epochs=1,
        options={
            "max_length": 16,
            "per_device_train_batch_size": 8,
            "warmup_steps": 0,
            "holdout": 0.25,
            "holdout_beside": True,
        },
        nproc_per_node=2,
        sharpness_examples=0,
        choose=[rates, rhos],
    )
    command = [str(path), "--model", str(made / "tiny"), "--data_dir", str(made / "data"), "--folder", str(tmp_path)]
    command += ["--methods", "adamw", "sampa-0", "--seeds", "4", "--jobs", "2"]
    assert run_main(GLUE, command) == 0
    chosen = {}
    for option, method in (("rho", "sam"), ("learning_rate", "adamw")):
        scores = {}
        for file in (tmp_path / "choices" / "study" / method / "cola").glob(f"{option}-*/seed-1.json"):
            record = json.loads(file.read_text())
            # 24 examples, a quarter held out; the validation split has 13 and must not be seen.
            assert record["meta_info"]["data"] == {"train_samples": 18, "eval_samples": {"eval_samples": 6}}
            training = record["meta_info"]["training"]
            value = training["sam_config"]["rho"] if option == "rho" else training["learning_rate"]
            assert float(file.parent.name.removeprefix(f"{option}-")) == value
            metrics = record["train_info"]["metrics"]
            scores[value] = (-metrics["matthews_correlation"], metrics["loss"])
        assert len(set(scores.values())) == 2
        chosen[option] = min(scores, key=scores.get)

    records = {m: tmp_path / f"results/study/cola/{m}/seed-4.json" for m in ("adamw", "sampa-0")}
    adamw, sampa = (json.loads(file.read_text()) for file in records.values())
    assert adamw["meta_info"]["training"]["learning_rate"] == chosen["learning_rate"]
    assert sampa["meta_info"]["training"]["sam_config"]["rho"] == sampa["rho"] == chosen["rho"]
    assert sampa["meta_info"]["training"]["learning_rate"] == 2e-5
    assert sampa["meta_info"]["processes"] == 2
    assert sampa["meta_info"]["data"]["eval_samples"] == {"eval_samples": 13, "eval_samples_holdout": 6}
    assert sampa["train_info"]["epochs"][-1]["eval_holdout_loss"] == sampa["train_info"]["metrics"]["loss_holdout"]
    # Two gradients an update, side by side, and the first lookahead gradient, which both ranks compute.
    assert sampa["train_info"]["gradient_computations"] == 2 * sampa["train_info"]["updates"] + 2
    for hidden in (str(tmp_path), str(made), str(REPOSITORY)):
        assert all(hidden not in file.read_text() for file in records.values())
    assert not list((tmp_path / "results").rglob("*.safetensors"))
    assert write_report(GLUE, tmp_path).read_text().count("2 finished, 0 failed, 4 missing") == 1

    capsys.readouterr()
    assert run_main(GLUE, command) == 0
    assert "started" not in capsys.readouterr().out
