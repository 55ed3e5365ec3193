"""The image recipe, measured: the same numbers as without, and sharpness on images as they are."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoImageProcessor, AutoModelForImageClassification, default_data_collator

import run_cifar
from hf_sam.diagnostics import worst_case_sharpness
from hf_sam_recipes.benchmarks.cifar import CIFAR
from hf_sam_recipes.images.data import load_cifar
from hf_sam_recipes.images.examples import ImageExamples
from hf_sam_recipes.images.tasks import TASKS
from hf_sam_recipes.matrix.command_line import run_main
from hf_sam_recipes.matrix.measure import train_and_measure

from ..cifar import made_cifar
from ..command_lines import later_wins
from ..conftest import REPOSITORY
from .studies import write_study_file


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
    assert set(info["metrics"]) == {"accuracy", "top5_accuracy", "loss", "ece"}
    assert measured["meta_info"]["data"] == {"train_samples": 60, "eval_samples": {"eval_samples": 25}}

    metrics = run_cifar.main(recipe_args(made, tmp_path / "alone"))
    for name in ("accuracy", "top5_accuracy", "loss"):
        assert metrics[f"eval_{name}"] == info["metrics"][name]
    models = [AutoModelForImageClassification.from_pretrained(tmp_path / name) for name in ("measured", "alone")]
    for one, other in zip(*(model.parameters() for model in models), strict=True):
        assert torch.equal(one, other)


def test_sharpness_is_on_training_images_as_they_are(made, tmp_path):
    args = [arg for arg in recipe_args(made, tmp_path) if "label_noise" not in arg]
    found = train_and_measure(run_cifar, later_wins(args), 10, 3, 0)["train_info"]["sharpness"]
    model = AutoModelForImageClassification.from_pretrained(tmp_path)
    train = load_cifar(TASKS["cifar10"], ["train"], str(made / "data"))["train"]
    examples = ImageExamples(train, AutoImageProcessor.from_pretrained(tmp_path, backend="pil"))
    chosen = np.sort(np.random.default_rng(0).choice(60, size=10, replace=False))
    batch = default_data_collator([examples[int(index)] for index in chosen])
    again = worst_case_sharpness(copy.deepcopy(model), [batch], rho=0.05, steps=3)
    assert found["loss"] == pytest.approx(again.loss, rel=1e-5)
    assert found["worst_loss"] == pytest.approx(again.worst_loss, rel=1e-5)


def test_the_runner_runs_images(made, tmp_path):
    path = write_study_file(
        tmp_path,
        tasks=["cifar10"],
        methods=["sampa-0.2"],
        seeds=[5],
        epochs=1,
        options={"dataloader_num_workers": 1},
        nproc_per_node=2,
        sharpness_examples=0,
    )
    command = [str(path), "--model", str(made / "tiny"), "--data_dir", str(made / "data"), "--folder", str(tmp_path)]
    assert run_main(CIFAR, command) == 0
    record = json.loads((tmp_path / "results/study/cifar10/sampa-0.2/seed-5.json").read_text())
    assert record["status"] == "finished"
    assert record["meta_info"]["processes"] == 2
    # One update of two gradients, side by side, and the first lookahead gradient, which both ranks compute.
    assert record["train_info"]["updates"] == 1
    assert record["train_info"]["gradient_computations"] == 4
    assert 0 <= record["train_info"]["metrics"]["accuracy"] <= 1
