"""AdamW, SAM and SAMPa on a small made-up CoLA, on a CPU, in a few minutes: `make demo`.

Trains the same small BERT from scratch three times, with the stock Trainer and with SAMTrainer, then prints one table.
SAMPa runs on two processes, started as `torchrun` would, with the same total batch as the others on one.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from datasets import Dataset
from demo_data import make_sentences
from sklearn.metrics import accuracy_score, matthews_corrcoef
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DataCollatorWithPadding,
    PreTrainedTokenizerFast,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from hf_sam import SAMConfig, SAMTrainer
from hf_sam.sharpness import worst_case_sharpness


RHO = 0.05
# Number of processes and options of each method; None is the stock Trainer.
METHODS = {
    "adamw": (1, None),
    "sam": (1, SAMConfig(method="sam", rho=RHO)),
    "sampa-0.1": (2, SAMConfig(method="sampa", rho=RHO, sampa_lambda=0.1)),
}
TRAIN_SIZE, EVAL_SIZE, SHARPNESS_SIZE, BATCH_SIZE = 6000, 1000, 256, 16


class UpdateTimer(TrainerCallback):
    """Median seconds from the end of one update to the end of the next."""

    def __init__(self):
        self.ends = []

    def on_step_end(self, args, state, control, **kwargs):
        self.ends.append(time.perf_counter())

    def median(self) -> float:
        return statistics.median(b - a for a, b in zip(self.ends, self.ends[1:], strict=False))


def build_tokenizer(sentences: list[str]) -> PreTrainedTokenizerFast:
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.train_from_iterator(sentences, trainers.WordLevelTrainer(special_tokens=list(special.values())))
    ends = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def compute_metrics(prediction) -> dict[str, float]:
    labels, guesses = prediction.label_ids, prediction.predictions.argmax(-1)
    return {"mcc": matthews_corrcoef(labels, guesses), "accuracy": accuracy_score(labels, guesses)}


def train(method: str, seed: int, epochs: float, output_dir: Path):
    """Train one method in this process, or as one rank of it, and write what came out to `<method>.json`."""
    processes, sam_config = METHODS[method]
    assert int(os.environ.get("WORLD_SIZE", 1)) == processes
    # Training and evaluation sentences are one draw, so none appears in both.
    data = Dataset.from_list(make_sentences(TRAIN_SIZE + EVAL_SIZE, seed=0))
    tokenizer = build_tokenizer(data["sentence"][:TRAIN_SIZE])
    data = data.map(lambda rows: tokenizer(rows["sentence"]), batched=True, remove_columns=["sentence", "idx"])
    train_data, eval_data = data.select(range(TRAIN_SIZE)), data.select(range(TRAIN_SIZE, len(data)))

    set_seed(seed)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=32,
        hidden_dropout_prob=0.05,
        attention_probs_dropout_prob=0.05,
        # The usual 0.02 is meant for wider models: here attention would take long to become uneven.
        initializer_range=0.08,
    )
    args = TrainingArguments(
        output_dir=str(output_dir / method),
        num_train_epochs=epochs,
        per_device_train_batch_size=BATCH_SIZE,
        per_device_eval_batch_size=BATCH_SIZE,
        learning_rate=1e-3,
        warmup_steps=0.1,
        weight_decay=0.01,
        logging_strategy="epoch",
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        ddp_find_unused_parameters=False,
        dataloader_pin_memory=False,
        seed=seed,
    )
    timer = UpdateTimer()
    trainer_class, options = (Trainer, {}) if sam_config is None else (SAMTrainer, {"sam_config": sam_config})
    trainer = trainer_class(
        model=BertForSequenceClassification(config),
        args=args,
        train_dataset=train_data,
        eval_dataset=eval_data,
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=compute_metrics,
        callbacks=[timer],
        **options,
    )
    # BERT's head averages the loss over the batch itself; told otherwise, the Trainer would scale it by the ranks.
    trainer.model_accepts_loss_kwargs = False
    trainer.train()
    metrics = trainer.evaluate()
    if trainer.is_world_process_zero():
        sample = train_data.select(range(SHARPNESS_SIZE))
        batches = torch.utils.data.DataLoader(sample, BATCH_SIZE, collate_fn=trainer.data_collator)
        result = {
            "mcc": metrics["eval_mcc"],
            "accuracy": metrics["eval_accuracy"],
            "eval_loss": metrics["eval_loss"],
            "sharpness": worst_case_sharpness(trainer.model, batches, rho=RHO, steps=5).sharpness,
            "seconds_per_update": timer.median(),
            "updates": trainer.state.global_step,
        }
        (output_dir / f"{method}.json").write_text(json.dumps(result, indent=1))


def run(method: str, args: argparse.Namespace) -> dict:
    """Train one method in processes of its own and return what came out."""
    processes = METHODS[method][0]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    command = [sys.executable, *(launcher if processes > 1 else []), __file__, "--worker", "--methods", method]
    command += ["--seed", str(args.seed), "--epochs", str(args.epochs), "--output_dir", str(args.output_dir)]
    print(f"\n{method}: {processes} process{'es' * (processes > 1)}", flush=True)
    # Every process gets one thread, so that a method does not look fast for having the other core to itself.
    status = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}).returncode
    if status != 0:
        sys.exit(f"{method} failed with exit status {status}; the error is above.")
    return json.loads((args.output_dir / f"{method}.json").read_text())


def table(results: dict[str, dict]) -> str:
    lines = [f"{'method':<10} {'processes':>9} {'MCC':>6} {'accuracy':>8} {'eval loss':>9} {'sharpness':>9} "]
    lines[0] += f"{'s/update':>8} {'ratio':>5}"
    base = results.get("adamw", {}).get("seconds_per_update")
    for method, r in results.items():
        ratio = f"{r['seconds_per_update'] / base:.2f}" if base else "-"
        lines.append(
            f"{method:<10} {METHODS[method][0]:>9} {r['mcc']:>6.3f} {r['accuracy']:>8.3f} {r['eval_loss']:>9.3f} "
            f"{r['sharpness']:>9.4f} {r['seconds_per_update']:>8.4f} {ratio:>5}"
        )
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS), help="what to train")
    parser.add_argument("--seed", type=int, default=0, help="seeds weights, data order and dropout")
    parser.add_argument("--epochs", type=float, default=8, help="passes over the training sentences")
    parser.add_argument("--output_dir", type=Path, default=Path("output/demo"), help="where the results are written")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.epochs <= 0:
        parser.error(f"argument --epochs: must be above 0, got {args.epochs}")
    args.output_dir.mkdir(parents=True, exist_ok=True)
    if args.worker:
        train(args.methods[0], args.seed, args.epochs, args.output_dir)
        return
    results = {method: run(method, args) for method in args.methods}
    updates = next(iter(results.values()))["updates"]
    print(
        f"\n{TRAIN_SIZE} training and {EVAL_SIZE} evaluation sentences, {updates} updates of {BATCH_SIZE} sentences."
    )
    print(f"MCC: Matthews correlation. Sharpness: rise of the training loss to the worst point within rho = {RHO}.")
    print("Seconds per update: median, one thread per process; ratio to AdamW on one process.\n")
    print(table(results))


if __name__ == "__main__":
    main()
