"""The image recipe, measured: the same numbers as without, and sharpness on images as they are."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import run_cifar
import torch
from cifar_benchmark import CIFAR
from cifar_data import load_cifar
from cifar_tasks import TASKS
from image_examples import ImageExamples
from matrix.command_line import run_main
from matrix.measure import train_and_measure
from transformers import AutoImageProcessor, AutoModelForImageClassification, default_data_collator

from hf_sam.diagnostics import worst_case_sharpness

from ..cifar import made_cifar
from ..conftest import REPOSITORY


UPDATES = 4  # 60 images in batches of 16


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    made_cifar.write_parquet(folder / "data", "cifar10")
    made_cifar.write_model(folder / "tiny", "vit")
    return folder


def recipe_args(made: Path, output: Path) -> list[str]:
    options = {
        "model_name_or_path": made / "tiny",
        "data_dir": made / "data",
        "output_dir": output,
        "num_train_epochs": 1,
        "per_device_train_batch_size": 16,
        "dataloader_num_workers": 0,
        "label_noise": 0.25,
        "seed": 3,
        "save_strategy": "no",
        "logging_strategy": "epoch",
        "report_to": "none",
    }
    recipe = str(REPOSITORY / "recipes/cifar/cifar10/sam.yaml")
    return [recipe, *(f"--{name}={value}" for name, value in options.items())]


def test_measured_like_any_recipe(made, tmp_path):
    measured = train_and_measure(run_cifar, recipe_args(made, tmp_path / "measured"), 10, 3, 0)
    info = measured["train_info"]
    assert info["updates"] == UPDATES
    assert info["gradient_computations"] == 2 * UPDATES
    assert set(info["metrics"]) == {"accuracy", "top5_accuracy", "loss"}
    assert measured["meta_info"]["data"] == {"train_samples": 60, "eval_samples": {"eval_samples": 25}}

    metrics = run_cifar.main(recipe_args(made, tmp_path / "alone"))
    for name, value in info["metrics"].items():
        assert metrics[f"eval_{name}"] == value
    models = [AutoModelForImageClassification.from_pretrained(tmp_path / name) for name in ("measured", "alone")]
    for one, other in zip(*(model.parameters() for model in models), strict=True):
        assert torch.equal(one, other)


def test_sharpness_is_on_training_images_as_they_are(made, tmp_path):
    args = [arg for arg in recipe_args(made, tmp_path) if "label_noise" not in arg]
    found = train_and_measure(run_cifar, args, 10, 3, 0)["train_info"]["sharpness"]
    model = AutoModelForImageClassification.from_pretrained(tmp_path)
    train = load_cifar(TASKS["cifar10"], ["train"], str(made / "data"))["train"]
    examples = ImageExamples(train, AutoImageProcessor.from_pretrained(tmp_path, backend="pil"))
    chosen = np.sort(np.random.default_rng(0).choice(60, size=10, replace=False))
    batch = default_data_collator([examples[int(index)] for index in chosen])
    again = worst_case_sharpness(copy.deepcopy(model), [batch], rho=0.05, steps=3)
    assert found["loss"] == pytest.approx(again.loss, rel=1e-5)
    assert found["worst_loss"] == pytest.approx(again.worst_loss, rel=1e-5)


def test_the_runner_runs_images(made, tmp_path):
    command = ["--tasks", "cifar10", "--methods", "sampa-0.2", "--seeds", "5", "--epochs", "1"]
    command += ["--model", str(made / "tiny"), "--data_dir", str(made / "data"), "--runs_dir", str(tmp_path / "runs")]
    options = ["--nproc_per_node", "2", "--dataloader_num_workers", "1", "--sharpness_examples", "0"]
    assert run_main(CIFAR, [*command, *options]) == 0
    record = json.loads((tmp_path / "runs/cifar10/sampa-0.2/seed-5.json").read_text())
    assert record["status"] == "finished"
    assert record["meta_info"]["processes"] == 2
    # One update of two gradients, side by side, and the first lookahead gradient, which both ranks compute.
    assert record["train_info"]["updates"] == 1
    assert record["train_info"]["gradient_computations"] == 4
    assert 0 <= record["train_info"]["metrics"]["accuracy"] <= 1
