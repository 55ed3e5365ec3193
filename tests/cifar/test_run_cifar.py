"""The recipe from the command line to the files that it leaves, with every YAML."""

import json

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image
from safetensors.torch import load_file
from transformers import TrainingArguments

import run_cifar
from hf_sam import SAMConfig
from hf_sam_recipes.common.options import parse_recipe
from hf_sam_recipes.images.trainer import ImageTrainer
from tests.hub.card_rules import section

from ..command_lines import later_wins
from . import made_cifar


METHODS = {
    "adamw": ("none", 0.1, 10),
    "adamw-2x": ("none", 0.1, 20),
    "sam": ("sam", 0.1, 10),
    "sampa-0": ("sampa", 0.0, 10),
    "sampa-0.2": ("sampa", 0.2, 10),
}
TINY = ["--per_device_train_batch_size", "4", "--use_cpu", "--report_to", "none", "--disable_tqdm", "true"]
TINY += ["--dataloader_num_workers", "0", "--dataloader_pin_memory", "false", "--from_scratch", "true"]


@pytest.fixture
def run(recipes, parquet_folder, model_folder, tmp_path):
    def run(recipe: str, *options: str, folder: str = "out", data_dir=parquet_folder, **kwargs):
        paths = ["--data_dir", str(data_dir), "--output_dir", str(tmp_path / folder)]
        paths += ["--model_name_or_path", str(model_folder)]
        metrics = run_cifar.main(later_wins([str(recipes / "cifar" / recipe), *TINY, *paths, *options]), **kwargs)
        return metrics, tmp_path / folder

    return run


def test_there_is_a_recipe_for_every_method(recipes):
    found = {str(path.relative_to(recipes / "cifar")) for path in (recipes / "cifar").rglob("*.yaml")}
    wanted = {f"{name}/{method}.yaml" for name in made_cifar.CLASSES for method in METHODS}
    # Beside them a file of chosen radii, which the runner reads.
    assert found == {"base.yaml", "scratch.yaml"} | wanted


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", made_cifar.CLASSES)
def test_every_recipe_says_what_its_name_says_and_runs(name, method, recipes, run):
    used = []

    def build(**kwargs):
        used.append(ImageTrainer(**kwargs))
        return used[0]

    few = ["--max_steps=2", "--max_eval_samples=10", "--save_strategy=no"]
    metrics, _ = run(f"{name}/{method}.yaml", *few, trainer_class=build)
    (trainer,) = used
    expected_method, sampa_lambda, epochs = METHODS[method]
    assert trainer.sam_config == SAMConfig(method=expected_method, rho=0.05, sampa_lambda=sampa_lambda)
    assert not trainer.model_accepts_loss_kwargs
    assert trainer.model.config.num_labels == made_cifar.CLASSES[name]
    assert trainer.state.global_step == 2
    assert set(metrics) >= {"eval_accuracy", "eval_top5_accuracy", "eval_loss", "eval_samples"}

    cifar_args, _, training_args, _ = parse_recipe(
        run_cifar.ARGUMENTS,
        [str(recipes / "cifar" / name / f"{method}.yaml"), "--use_cpu"],
    )
    assert cifar_args.model_name_or_path == "google/vit-base-patch16-224-in21k"
    assert (cifar_args.dataset_name, cifar_args.bf16_where_supported) == (name, True)
    assert training_args.output_dir == f"runs/cifar/{name}/{method}"
    assert training_args.num_train_epochs == epochs
    assert training_args.per_device_train_batch_size == 128
    assert training_args.lr_scheduler_type == "cosine"
    assert (training_args.warmup_steps, training_args.max_grad_norm) == (0.1, 1.0)
    assert training_args.dataloader_num_workers > 0


def test_the_recipe_from_scratch_stands_on_top_of_another(recipes, tmp_path, monkeypatch):
    folder = recipes / "cifar"
    cifar_args, _, training_args, sam_config = parse_recipe(
        run_cifar.ARGUMENTS,
        [str(folder / "cifar10" / "sam.yaml"), str(folder / "scratch.yaml"), "--use_cpu"],
    )
    assert (sam_config.method, training_args.learning_rate, cifar_args.from_scratch) == ("sam", 3e-4, True)
    # Wherever the script is started.
    monkeypatch.chdir(tmp_path)
    with torch.device("meta"):
        model, processor = run_cifar.load_model(
            run_cifar.find_task("cifar10"), cifar_args, TrainingArguments(do_train=True, use_cpu=True)
        )
    assert 6e6 < model.num_parameters() < 6.5e6
    image = np.zeros((32, 32, 3), np.uint8)
    assert processor(images=image, return_tensors="np")["pixel_values"].shape == (1, 3, 32, 32)


def test_the_files_of_a_run(run):
    metrics, folder = run(
        "cifar10/sam.yaml", "--num_train_epochs", "2", "--learning_rate", "1e-3", "--logging_steps=5"
    )
    results = json.loads((folder / "all_results.json").read_text())
    assert results["eval_accuracy"] == metrics["eval_accuracy"]
    assert results["eval_top5_accuracy"] == metrics["eval_top5_accuracy"] >= metrics["eval_accuracy"]
    assert (results["train_samples"], results["eval_samples"]) == (60, 25)
    assert json.loads((folder / "sam_config.json").read_text())["method"] == "sam"
    assert json.loads((folder / "preprocessor_config.json").read_text())["size"] == {"height": 16, "width": 16}
    assert json.loads((folder / "config.json").read_text())["id2label"]["9"] == "truck"
    for picture in ("confusion_matrix.png", "loss_curves.png"):
        # More than a white page.
        assert len(np.unique(np.asarray(Image.open(folder / picture)))) > 20

    card = ModelCard.load(folder / "README.md")
    results = card.data.eval_results
    assert [(r.dataset_name, r.dataset_split, r.metric_type, r.metric_name, r.metric_value) for r in results] == [
        ("CIFAR-10", "test", "accuracy", "Accuracy", metrics["eval_accuracy"]),
        ("CIFAR-10", "test", "accuracy", "Top-5 Accuracy", metrics["eval_top5_accuracy"]),
    ]
    assert "## Training and evaluation data\n\nMore information needed" in card.text

    # The saved model, alone, says the same.
    saved = ["--do_train", "false", "--from_scratch", "false", "--model_name_or_path", str(folder)]
    again, _ = run("cifar10/sam.yaml", *saved, folder="again")
    assert again["eval_accuracy"] == metrics["eval_accuracy"]
    assert again["eval_loss"] == pytest.approx(metrics["eval_loss"], rel=1e-6)


@pytest.mark.parametrize("method", ["adamw", "sam"])
def test_the_card_tells_what_was_done_to_the_examples(method, run):
    options = ["--label_noise", "0.4", "--max_train_samples", "40", "--holdout", "0.25", "--data_seed", "7"]
    metrics, folder = run(f"cifar10/{method}.yaml", *options, "--max_steps", "1", "--save_strategy", "no")
    assert metrics["eval_samples"] == 10
    card = ModelCard.load(folder / "README.md")
    told = section(card.text, "Training and evaluation data")
    for line in (
        "`max_train_samples`: 40.",
        "`holdout`: 0.25.",
        "`label_noise`: 0.4.",
        "All of this was drawn with seed 7.",
    ):
        assert f"- {line}" in told
    # The host's own card of an AdamW run names no split of images.
    assert {r.dataset_split for r in card.data.eval_results} == {"train_held_out" if method == "sam" else None}


def test_it_learns_and_label_noise_hurts(run):
    options = ["--num_train_epochs", "8", "--learning_rate", "3e-3", "--eval_strategy", "no", "--save_strategy", "no"]
    options += ["--warmup_steps", "0", "--horizontal_flip", "false", "--max_train_samples", "50"]
    clean, _ = run("cifar10/adamw.yaml", *options)
    noisy, folder = run("cifar10/adamw.yaml", *options, "--label_noise", "0.8", folder="noisy")
    # 2.3 by chance; brightness gives the class away, roughly.
    assert clean["eval_loss"] < 2.0
    assert clean["eval_top5_accuracy"] > 0.7
    assert noisy["eval_loss"] > clean["eval_loss"] + 0.2
    assert json.loads((folder / "all_results.json").read_text())["train_samples"] == 50


def test_label_noise_and_samples_choose_with_the_data_seed(parquet_folder):
    def choose(*options):
        _, example_args, training_args, _ = parse_recipe(
            run_cifar.ARGUMENTS,
            ["--dataset_name", "cifar10", "--use_cpu", "--do_train", "--do_eval", *options],
        )
        task = run_cifar.find_task("cifar10")
        return run_cifar.choose_examples(task, str(parquet_folder), example_args, training_args)

    train, evaluation = choose()
    assert (len(train), len(evaluation[""])) == (60, 25)
    clean = np.array(train["label"])
    noisy = np.array(choose("--label_noise", "0.5")[0]["label"])
    assert (noisy != clean).sum() == 30
    assert np.array_equal(noisy, choose("--label_noise", "0.5")[0]["label"])
    assert not np.array_equal(noisy, choose("--label_noise", "0.5", "--data_seed", "7")[0]["label"])
    assert evaluation[""]["label"][:] == choose("--label_noise", "0.5")[1][""]["label"][:]

    rest, held_out = choose("--holdout", "0.25", "--label_noise", "1.0", "--max_train_samples", "40")
    assert (len(rest), len(held_out[""])) == (30, 10)
    # What is held out keeps its labels: it measures.
    by_pixels = {np.asarray(image).tobytes(): label for image, label in zip(train["image"], clean, strict=True)}
    assert [by_pixels[np.asarray(image).tobytes()] for image in held_out[""]["image"]] == held_out[""]["label"][:]
    assert all(by_pixels[np.asarray(row["image"]).tobytes()] != row["label"] for row in rest)


def test_from_scratch_depends_on_the_seed_alone_and_otherwise_the_weights_are_read(run, model_folder):
    once = ["--max_steps", "1", "--learning_rate", "0", "--do_eval", "false", "--eval_strategy", "no"]
    weights = [
        load_file(run("cifar10/adamw.yaml", *once, *options, folder=str(i))[1] / "model.safetensors")
        for i, options in enumerate([[], [], ["--seed", "1"], ["--from_scratch", "false"]])
    ]
    same, again, other, read = weights
    assert all(torch.equal(same[name], again[name]) for name in same)
    assert not torch.equal(same["classifier.weight"], other["classifier.weight"])
    checkpoint = load_file(model_folder / "model.safetensors")
    assert all(torch.equal(read[name], checkpoint[name]) for name in checkpoint)
    assert not torch.equal(same["classifier.weight"], checkpoint["classifier.weight"])


def test_a_resumed_run_ends_where_the_uninterrupted_one_does(run):
    options = ["--num_train_epochs", "2", "--learning_rate", "1e-3", "--save_total_limit", "5"]
    whole, folder = run("cifar10/sampa-0.2.yaml", *options)
    expected = load_file(folder / "model.safetensors")
    again, folder = run("cifar10/sampa-0.2.yaml", *options, "--resume_from_checkpoint", str(folder / "checkpoint-15"))
    found = load_file(folder / "model.safetensors")
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert again["eval_accuracy"] == whole["eval_accuracy"]


def test_the_best_model_is_loaded_with_all_of_its_weights(run):
    options = ["--num_train_epochs", "2", "--learning_rate", "0.1", "--load_best_model_at_end", "true"]
    options += ["--metric_for_best_model", "eval_loss", "--save_total_limit", "2", "--warmup_steps", "0"]
    metrics, folder = run("cifar10/adamw.yaml", *options)
    state = json.loads((folder / "trainer_state.json").read_text())
    assert metrics["eval_loss"] == pytest.approx(state["best_metric"], rel=1e-6)
    best, final = (
        load_file(folder / name / "model.safetensors") for name in (f"checkpoint-{state['best_global_step']}", ".")
    )
    assert all(torch.equal(best[name], final[name]) for name in best)


@pytest.mark.parametrize(
    ("options", "bf16"), [([], True), (["--bf16_where_supported", "false"], False), (["--fp16"], False)]
)
def test_bf16_where_the_device_has_it(options, bf16, run, monkeypatch):
    """Whatever the device says is what the Trainer gets."""
    seen = []

    def prepare(training_args):
        seen.append((training_args.bf16, training_args.mixed_precision))
        raise InterruptedError

    monkeypatch.setattr(run_cifar, "computes_in_bf16", lambda device: True)
    monkeypatch.setattr(run_cifar.workflow, "prepare", prepare)
    with pytest.raises(InterruptedError):
        run("cifar10/sam.yaml", *options)
    assert seen == [(bf16, "bf16" if bf16 else "fp16" if "--fp16" in options else "no")]


def test_a_cpu_only_imitates_bf16():
    assert not run_cifar.computes_in_bf16(torch.device("cpu"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dataset_name", "cifar20"], "dataset_name='cifar20': did you mean"),
        (["--crop_padding=-2"], "crop_padding=-2: must be at least 0"),
        (["--data_dir", "nowhere"], "data_dir='nowhere': no such folder"),
        (["--label_noise", "1.5"], "label_noise=1.5: must be from 0 to 1"),
        (["--crop_paddding", "2"], "unknown option 'crop_paddding'; did you mean 'crop_padding'"),
        (["--prediction_loss_only"], "prediction_loss_only=True: accuracy needs"),
        (["--eval_do_concat_batches", "false"], "eval_do_concat_batches=False: accuracy needs"),
        (["--do_train", "false"], "from_scratch=True without do_train"),
        (
            ["--do_train=false", "--from_scratch=false", "--ignore_mismatched_sizes"],
            "ignore_mismatched_sizes=True without do_train",
        ),
        (
            ["--dataloader_drop_last", "--per_device_eval_batch_size=10"],
            "dataloader_drop_last=True leaves 5 of 25 examples out of the evaluation",
        ),
    ],
)
def test_wrong_options_are_named(options, message, run):
    with pytest.raises(ValueError, match=message):
        run("cifar10/sam.yaml", *options)
