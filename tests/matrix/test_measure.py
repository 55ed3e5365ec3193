"""Real training runs of the real recipe: measured right, and not changed by being measured."""

import copy
import json
import math
from pathlib import Path

import numpy as np
import pytest
import run_glue
import torch
import transformers
import yaml
from glue_benchmark import GLUE
from matrix.command_line import rho_main, run_main
from matrix.measure import train_and_measure
from matrix.study import Study
from matrix.tables import failure_table

from hf_sam.diagnostics import worst_case_sharpness

from ..conftest import REPOSITORY
from ..recipes import made_glue


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
    for name, value in results[method]["train_info"]["metrics"].items():
        assert metrics[f"eval_{name}"] == value
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
    info = train_and_measure(run_glue, args, 0, 0, 0)["train_info"]
    metrics, last = info["metrics"], info["epochs"][-1]
    assert metrics["loss"] != metrics["loss_mm"]
    assert (last["eval_loss"], last["eval_accuracy"]) == (metrics["loss"], metrics["accuracy"])
    assert (last["eval_mm_loss"], last["eval_mm_accuracy"]) == (metrics["loss_mm"], metrics["accuracy_mm"])


def test_micro_batches_count(made, tmp_path):
    args = [*recipe_args(made, "sam", tmp_path), "--per_device_train_batch_size=4", "--gradient_accumulation_steps=2"]
    info = train_and_measure(run_glue, args, 0, 0, 0)["train_info"]
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
    found = train_and_measure(run_glue, args, 8, 3, 0)["train_info"]["sharpness"]
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


def test_a_failure_of_two_ranks_is_recorded_with_its_error(made, tmp_path):
    command = ["--tasks", "cola", "--methods", "sampa-0", "--seeds", "1", "--label_noise", "7"]
    command += ["--model", str(made / "tiny"), "--data_dir", str(made / "data"), "--runs_dir", str(tmp_path / "runs")]
    command += ["--nproc_per_node", "2"]
    assert run_main(GLUE, command) == 1
    record = json.loads((tmp_path / "runs" / "cola" / "sampa-0" / "seed-1.json").read_text())
    assert "ValueError: label_noise=7.0: must be from 0 to 1." in record["error"]
    shown = failure_table(Study(GLUE, tmp_path / "runs"))
    assert "| cola | sampa-0 | 1 | `ValueError: label_noise=7.0: must be from 0 to 1.` |" in shown


def test_rho_is_chosen_on_held_out_examples_and_used(made, tmp_path, capsys):
    rho_file = tmp_path / "tiny.yaml"
    common = ["--tasks", "cola", "--model", str(made / "tiny"), "--data_dir", str(made / "data"), "--epochs", "1"]
    common += ["--max_length", "16", "--sharpness_examples", "0"]
    choice = ["--rhos", "0.02", "0.1", "--holdout", "0.25", "--rho_file", str(rho_file)]
    assert rho_main(GLUE, [*common, *choice, "--jobs", "2", "--runs_dir", str(tmp_path / "choice")]) == 0
    records = [json.loads(path.read_text()) for path in sorted((tmp_path / "choice").glob("cola/*/seed-1.json"))]
    assert [record["rho"] for record in records] == [0.02, 0.1]
    for record in records:
        # 24 examples, a quarter held out; the validation split has 13 and must not be seen.
        assert record["meta_info"]["data"] == {"train_samples": 18, "eval_samples": {"eval_samples": 6}}
        assert record["meta_info"]["training"]["sam_config"]["rho"] == record["rho"]
    chosen = yaml.safe_load(rho_file.read_text())["rho"]["cola"]
    metrics = {record["rho"]: record["train_info"]["metrics"] for record in records}
    scores = {rho: (-found["matthews_correlation"], found["loss"]) for rho, found in metrics.items()}
    assert chosen == min(scores, key=scores.get)

    runs = [*common, "--methods", "sampa-0", "--seeds", "4", "--rho_file", str(rho_file), "--nproc_per_node", "2"]
    runs += ["--runs_dir", str(tmp_path / "runs")]
    assert run_main(GLUE, runs) == 0
    path = tmp_path / "runs" / "cola" / "sampa-0" / "seed-4.json"
    record = json.loads(path.read_text())
    assert record["meta_info"]["training"]["sam_config"]["rho"] == record["rho"] == chosen
    assert record["meta_info"]["processes"] == 2
    assert record["meta_info"]["data"]["eval_samples"] == {"eval_samples": 13}
    # One update of two gradients, side by side, and the first lookahead gradient, which both ranks compute.
    assert record["train_info"]["gradient_computations"] == 2 * record["train_info"]["updates"] + 2
    for hidden in (str(tmp_path), str(made), str(REPOSITORY)):
        assert hidden not in path.read_text()
    assert not list((tmp_path / "runs").rglob("*.safetensors"))

    capsys.readouterr()
    assert run_main(GLUE, runs) == 0
    assert "started" not in capsys.readouterr().out
