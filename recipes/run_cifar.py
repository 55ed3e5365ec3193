"""
Fine-tune an image classifier on CIFAR-10 or CIFAR-100 with AdamW, AdamW-SAM or AdamW-SAMPa.

    python recipes/run_cifar.py recipes/cifar/cifar10/sam.yaml --rho 0.1
    torchrun --standalone --nproc_per_node 2 recipes/run_cifar.py recipes/cifar/cifar10/sampa-0.2.yaml

The command line beats the YAML file, which beats the defaults. All options: `python recipes/run_cifar.py --help`.
A mistake in them is told in one line; `--debug` shows where it was found.
"""

import dataclasses
from pathlib import Path

import torch
from datasets import Dataset
from transformers import (
    AutoConfig,
    AutoModelForImageClassification,
    BaseImageProcessor,
    PreTrainedModel,
    TrainingArguments,
)

# From its own module: before transformers 5.18, the name at the top is only there together with torchvision.
from transformers.models.auto.image_processing_auto import AutoImageProcessor

from hf_sam_recipes import REPOSITORY
from hf_sam_recipes.common import workflow
from hf_sam_recipes.common.entry import run_script
from hf_sam_recipes.common.examples import ExampleArguments
from hf_sam_recipes.common.models import reading_model
from hf_sam_recipes.common.options import parse_recipe
from hf_sam_recipes.images.data import load_cifar
from hf_sam_recipes.images.examples import Augmentation, AugmentedExamples, ImageExamples
from hf_sam_recipes.images.metric import ImageMetrics
from hf_sam_recipes.images.options import ARGUMENTS, CifarArguments
from hf_sam_recipes.images.plots import plot_confusion, plot_losses
from hf_sam_recipes.images.tasks import CifarTask, find_task
from hf_sam_recipes.images.trainer import ImageTrainer


def main(args: list[str], trainer_class: type[ImageTrainer] = ImageTrainer) -> dict[str, float]:
    """Run the recipe that the command line `args` describes, and return the evaluation metrics."""
    workflow.use_cpu_without_accelerator()
    cifar_args, example_args, training_args, sam_config = parse_recipe(ARGUMENTS, args)
    refuse_partial_predictions(training_args)
    workflow.refuse_random_weights(training_args, cifar_args, "from_scratch", "ignore_mismatched_sizes")
    task = find_task(cifar_args.dataset_name)
    augmentation = Augmentation(cifar_args.crop_padding, cifar_args.horizontal_flip)
    if cifar_args.bf16_where_supported and not training_args.fp16 and computes_in_bf16(training_args.device):
        training_args = dataclasses.replace(training_args, bf16=True)
    checkpoint = workflow.prepare(training_args)

    # Data before the model: a wrong folder should be reported at once.
    with training_args.main_process_first(desc="loading the data"):
        train, evaluation = choose_examples(task, cifar_args.data_dir, example_args, training_args)
    workflow.check_training(training_args, sam_config, train)
    model, processor = load_model(task, cifar_args, training_args)
    seed = workflow.data_seed(training_args)
    evaluation = {name: ImageExamples(split, processor) for name, split in evaluation.items()}
    workflow.check_evaluation(training_args, evaluation)

    compute_metrics = ImageMetrics(len(task.labels))
    trainer = trainer_class(
        model=model,
        args=training_args,
        train_dataset=None if train is None else AugmentedExamples(train, processor, augmentation, seed),
        eval_dataset=evaluation.get(""),
        processing_class=processor,
        compute_metrics=compute_metrics,
        sam_config=sam_config,
    )
    workflow.average_micro_batches(trainer)
    example_args.evaluate_in_training(trainer, evaluation)

    metrics = {}
    output_dir = Path(training_args.output_dir)
    if training_args.do_train:
        workflow.train(trainer, checkpoint)
    if training_args.do_eval:
        metrics = workflow.evaluate(trainer, evaluation)
        if trainer.is_world_process_zero():
            plot_confusion(compute_metrics.confusion, task.labels, output_dir / "confusion_matrix.png")
    if training_args.do_train:
        if trainer.is_world_process_zero():
            plot_losses(trainer.state.log_history, output_dir / "loss_curves.png")
        workflow.share(
            trainer,
            tasks="image-classification",
            tags=[task.name],
            dataset_tags=task.hub_dataset,
            dataset=task.title,
            data_description=example_args.describe(seed),
        )
    return metrics


def refuse_partial_predictions(training_args: TrainingArguments) -> None:
    """
    Raises:
        `ValueError`: an option would keep predictions from the metrics, after all of the training.
    """
    for name, value in (("prediction_loss_only", True), ("eval_do_concat_batches", False)):
        if training_args.do_eval and getattr(training_args, name) is value:
            raise ValueError(f"{name}={value}: accuracy needs the predictions for all images at once; leave it out.")


def computes_in_bf16(device: torch.device) -> bool:
    """Whether bf16 makes a device faster: no CPU, and no GPU that only imitates it."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type in ("xpu", "npu", "hpu")


def choose_examples(
    task: CifarTask, data_dir: str | None, example_args: ExampleArguments, training_args: TrainingArguments
) -> tuple[Dataset | None, dict[str, Dataset]]:
    """The images to train on, and those to evaluate on, as `{"": split}` as far as they are wanted."""
    wanted = ["train"] if training_args.do_train or example_args.holdout else []
    if training_args.do_eval and example_args.evaluates_on_split:
        wanted.append("test")
    loaded = load_cifar(task, wanted, data_dir)
    evaluation = {"": loaded["test"]} if "test" in loaded else {}
    return example_args.choose(
        loaded.get("train"), evaluation, workflow.data_seed(training_args), num_classes=len(task.labels)
    )


def load_model(
    task: CifarTask, cifar_args: CifarArguments, training_args: TrainingArguments
) -> tuple[PreTrainedModel, BaseImageProcessor]:
    """The model with a head for the classes, and its image processor (pillow's, with or without torchvision)."""
    name = cifar_args.model_name_or_path
    if not Path(name).is_dir() and (REPOSITORY / name / "config.json").is_file():
        # The models of the recipes, from wherever the script is started.
        name = str(REPOSITORY / name)
    with reading_model(name):
        config = AutoConfig.from_pretrained(name)
        task.configure_head(config, for_training=training_args.do_train)
        processor = AutoImageProcessor.from_pretrained(name, backend="pil")
        # Checkpoints stored in 16 bits would round away AdamW's small steps. For every method alike.
        if cifar_args.from_scratch:
            # The card asks it where the weights are from.
            config.name_or_path = ""
            model, missing = AutoModelForImageClassification.from_config(config, dtype=torch.float32), ()
        else:
            model, loading = AutoModelForImageClassification.from_pretrained(
                name,
                config=config,
                dtype=torch.float32,
                ignore_mismatched_sizes=cifar_args.ignore_mismatched_sizes,
                output_loading_info=True,
            )
            missing = loading["missing_keys"]
    workflow.refuse_missing_weights(training_args, name, missing)
    return model, processor


if __name__ == "__main__":
    run_script(main, go_on=workflow.GO_ON)
