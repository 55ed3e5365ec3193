"""AdamW, SAM and SAMPa on a small made-up CoLA, on a CPU, in a few minutes: `make demo`.

Trains the same small BERT from scratch three times, with the stock Trainer and with SAMTrainer, then prints one table.
SAMPa runs on two processes, started as `torchrun` would, with the same total batch as the others on one.
"""

from datasets import Dataset
from sklearn.metrics import accuracy_score, matthews_corrcoef
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DataCollatorWithPadding,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
)

from hf_sam import SAMConfig, SAMTrainer
from hf_sam_recipes.common.entry import run_script
from hf_sam_recipes.demos.comparison import Comparison
from hf_sam_recipes.demos.sentences import make_sentences


RHO = 0.05
# Number of processes and options of each method; None is the stock Trainer.
METHODS = {
    "adamw": (1, None),
    "sam": (1, SAMConfig(method="sam", rho=RHO)),
    "sampa-0.1": (2, SAMConfig(method="sampa", rho=RHO, sampa_lambda=0.1)),
}
TRAIN_SIZE, EVAL_SIZE, SHARPNESS_SIZE, BATCH_SIZE = 6000, 1000, 256, 16


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


def build(sam_config: SAMConfig | None, args: TrainingArguments) -> tuple[Trainer, Dataset]:
    """The trainer, the stock one without options of SAM, and the sentences to measure sharpness on."""
    # Training and evaluation sentences are one draw, so none appears in both.
    data = Dataset.from_list(make_sentences(TRAIN_SIZE + EVAL_SIZE, seed=0))
    tokenizer = build_tokenizer(data["sentence"][:TRAIN_SIZE])
    data = data.map(lambda rows: tokenizer(rows["sentence"]), batched=True, remove_columns=["sentence", "idx"])
    train_data, eval_data = data.select(range(TRAIN_SIZE)), data.select(range(TRAIN_SIZE, len(data)))

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
    trainer_class, options = (Trainer, {}) if sam_config is None else (SAMTrainer, {"sam_config": sam_config})
    trainer = trainer_class(
        model=BertForSequenceClassification(config),
        args=args,
        train_dataset=train_data,
        eval_dataset=eval_data,
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=compute_metrics,
        **options,
    )
    return trainer, train_data.select(range(SHARPNESS_SIZE))


def main(args: list[str]) -> None:
    Comparison(
        script=__file__,
        title=__doc__.splitlines()[0],
        methods=METHODS,
        scores={"mcc": "MCC", "accuracy": "accuracy"},
        build=build,
        arguments={
            "per_device_train_batch_size": BATCH_SIZE,
            "per_device_eval_batch_size": BATCH_SIZE,
            "learning_rate": 1e-3,
            "warmup_steps": 0.1,
            "weight_decay": 0.01,
        },
        epochs=6,
        output_dir="output/demo",
        explanation=(
            f"{TRAIN_SIZE} training and {EVAL_SIZE} evaluation sentences, {{updates}} updates of {BATCH_SIZE} "
            "sentences.\nMCC: Matthews correlation."
        ),
        rho=RHO,
    ).main(args)


if __name__ == "__main__":
    run_script(main, go_on="the same command starts again")
