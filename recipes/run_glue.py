"""
Fine-tune a pretrained encoder on a GLUE task with AdamW, AdamW-SAM or AdamW-SAMPa.

    python recipes/run_glue.py recipes/glue/mrpc/sam.yaml --rho 0.1
    torchrun --standalone --nproc_per_node 2 recipes/run_glue.py recipes/glue/mrpc/sampa-0.1.yaml

The command line beats the YAML file, which beats the defaults. All options: `python recipes/run_glue.py --help`.
A mistake in them is told in one line; `--debug` shows where it was found.
"""

from pathlib import Path

import torch
from datasets import Dataset
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    EvalPrediction,
    PreTrainedModel,
    TrainingArguments,
)
from transformers import PreTrainedTokenizerBase as Tokenizer

from hf_sam import SAMTrainer
from hf_sam_recipes.common import workflow
from hf_sam_recipes.common.entry import is_at_work, run_script
from hf_sam_recipes.common.examples import ExampleArguments
from hf_sam_recipes.common.metrics import load_metric
from hf_sam_recipes.common.models import reading_model
from hf_sam_recipes.common.options import parse_recipe
from hf_sam_recipes.glue.data import HUB_DATASET, load_glue
from hf_sam_recipes.glue.metric import GlueMetric
from hf_sam_recipes.glue.options import ARGUMENTS, GlueArguments
from hf_sam_recipes.glue.tasks import GlueTask, find_task
from hf_sam_recipes.glue.tokens import check_tokenizer, check_tokens


Splits = dict[str, Dataset]


def main(args: list[str], trainer_class: type[SAMTrainer] = SAMTrainer) -> dict[str, float]:
    """Run the recipe that the command line `args` describes, and return the evaluation metrics."""
    workflow.use_cpu_without_accelerator()
    glue_args, example_args, training_args, sam_config = parse_recipe(ARGUMENTS, args)
    workflow.refuse_random_weights(training_args, glue_args, "ignore_mismatched_sizes")
    task = find_task(glue_args.task_name)
    checkpoint = workflow.prepare(training_args)

    # Data before the model: a wrong folder should be reported at once.
    with training_args.main_process_first(desc="loading the data"):
        train, evaluation, test = choose_examples(task, glue_args.data_dir, example_args, training_args)
    workflow.check_training(training_args, sam_config, train.get("train"))
    model, tokenizer = load_model(task, glue_args, training_args)
    with training_args.main_process_first(desc="tokenizing"):
        train, evaluation, test = (
            tokenize(splits, task, tokenizer, glue_args) for splits in (train, evaluation, test)
        )
    for split in [*train.values(), *evaluation.values(), *test.values()]:
        check_tokens(glue_args.model_name_or_path, tokenizer, split, model.get_input_embeddings().num_embeddings)
    workflow.check_evaluation(training_args, evaluation)

    metric = load_metric("glue", fallback=GlueMetric, config_name=task.name)

    def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
        result = metric.compute(predictions=task.predict(prediction.predictions), references=prediction.label_ids)
        if len(result) > 1:
            result["combined_score"] = sum(result.values()) / len(result)
        return result

    trainer = trainer_class(
        model=model,
        args=training_args,
        train_dataset=train.get("train"),
        eval_dataset=evaluation.get(""),
        data_collator=DataCollatorWithPadding(tokenizer, pad_to_multiple_of=8 if training_args.fp16 else None),
        processing_class=tokenizer,
        compute_metrics=compute_metrics,
        sam_config=sam_config,
    )
    workflow.average_micro_batches(trainer)
    example_args.evaluate_in_training(trainer, evaluation)

    metrics = {}
    if training_args.do_train:
        workflow.train(trainer, checkpoint)
    if training_args.do_eval:
        metrics = workflow.evaluate(trainer, evaluation)
    if training_args.do_predict:
        predict(trainer, task, test)
    if training_args.do_train:
        workflow.share(
            trainer,
            language="en",
            tasks="text-classification",
            tags=["glue", task.name],
            dataset_tags=HUB_DATASET,
            dataset_args=task.name,
            dataset=f"GLUE {task.folder}",
            data_description=example_args.describe(workflow.data_seed(training_args)),
        )
    return metrics


def choose_examples(
    task: GlueTask, data_dir: str | None, example_args: ExampleArguments, training_args: TrainingArguments
) -> tuple[Splits, Splits, Splits]:
    """What to train on, `{"train": split}`, to evaluate on, by suffix of the metrics, and to predict, by file name."""
    wanted = ["train"] if training_args.do_train or example_args.holdout else []
    if training_args.do_eval and example_args.evaluates_on_split:
        wanted += task.validation_splits
    if training_args.do_predict:
        wanted += task.test_splits
    loaded = load_glue(task, wanted, data_dir)
    evaluation = {suffix: loaded[split] for split, suffix in task.validation_splits.items() if split in loaded}
    test = {file: loaded[split].remove_columns("label") for split, file in task.test_splits.items() if split in loaded}
    train, evaluation = example_args.choose(
        loaded.get("train"), evaluation, workflow.data_seed(training_args), num_classes=len(task.labels) or None
    )
    return {} if train is None else {"train": train}, evaluation, test


def load_model(
    task: GlueTask, glue_args: GlueArguments, training_args: TrainingArguments
) -> tuple[PreTrainedModel, Tokenizer]:
    """The model with a head for the task, and its tokenizer."""
    name = glue_args.model_name_or_path
    with reading_model(name):
        config = AutoConfig.from_pretrained(name)
        task.configure_head(config, for_training=training_args.do_train)
        tokenizer = AutoTokenizer.from_pretrained(name)
        model, loading = AutoModelForSequenceClassification.from_pretrained(
            name,
            config=config,
            # Checkpoints stored in 16 bits would round away AdamW's small steps. For every method alike.
            dtype=torch.float32,
            ignore_mismatched_sizes=glue_args.ignore_mismatched_sizes,
            output_loading_info=True,
        )
    workflow.refuse_missing_weights(training_args, name, loading["missing_keys"])
    check_tokenizer(name, tokenizer, glue_args.max_length, sentences=len(task.sentences))
    return model, tokenizer


def tokenize(splits: Splits, task: GlueTask, tokenizer: Tokenizer, glue_args: GlueArguments) -> Splits:
    """Token ids instead of sentences; the label stays where there is one."""
    options = {
        "truncation": True,
        "max_length": min(glue_args.max_length, tokenizer.model_max_length),
        "padding": "max_length" if glue_args.pad_to_max_length else False,
    }

    def encode(batch):
        return tokenizer(*(batch[name] for name in task.sentences), **options)

    return {
        key: split.map(encode, batched=True, remove_columns=[name for name in split.column_names if name != "label"])
        for key, split in splits.items()
    }


@is_at_work()
def predict(trainer: SAMTrainer, task: GlueTask, test: Splits) -> None:
    """Write GLUE's submission files, one per test split."""
    for file_name, split in test.items():
        predictions = task.predict(trainer.predict(split, metric_key_prefix="predict").predictions)
        if trainer.is_world_process_zero():
            task.write_submission(Path(trainer.args.output_dir) / file_name, predictions)


if __name__ == "__main__":
    run_script(main, go_on=workflow.GO_ON)
