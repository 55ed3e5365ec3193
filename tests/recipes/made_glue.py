"""GLUE made by code: the same examples as parquet files of the Hub and as the official TSV files, and a tiny model."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast


# Hub's columns and class names, written down a second time: the table of the recipes is what is tested.
COLUMNS = {
    "cola": ["sentence"],
    "sst2": ["sentence"],
    "mrpc": ["sentence1", "sentence2"],
    "stsb": ["sentence1", "sentence2"],
    "qqp": ["question1", "question2"],
    "mnli": ["premise", "hypothesis"],
    "qnli": ["question", "sentence"],
    "rte": ["sentence1", "sentence2"],
    "wnli": ["sentence1", "sentence2"],
}
CLASSES = {"mnli": ["entailment", "neutral", "contradiction"]} | {
    task: ["entailment", "not_entailment"] for task in ("qnli", "rte")
}
FOLDERS = {
    "cola": "CoLA",
    "sst2": "SST-2",
    "mrpc": "MRPC",
    "stsb": "STS-B",
    "qqp": "QQP",
    "mnli": "MNLI",
    "qnli": "QNLI",
    "rte": "RTE",
    "wnli": "WNLI",
}
TASKS = tuple(COLUMNS)
SIZES = {"train": 24, "validation": 13, "test": 7}
WORDS = ["the", "old", "ship", "sails", '"quoted', "isn't", "Zoë", "slowly", ",", "and", "never", "1,000"]


def splits_of(task: str) -> list[str]:
    if task == "mnli":
        return ["train", "validation_matched", "validation_mismatched", "test_matched", "test_mismatched"]
    return ["train", "validation", "test"]


def examples(task: str, split: str) -> pd.DataFrame:
    """Sentences of random words; the label can be read off the first word, so that training has something to find."""
    rng = np.random.default_rng([TASKS.index(task), splits_of(task).index(split)])
    size = SIZES[split.split("_")[0]]
    classes = 6 if task == "stsb" else len(CLASSES.get(task, [0, 1]))
    labels = np.arange(size) % classes
    table = {}
    for column in COLUMNS[task]:
        table[column] = [f"{WORDS[label]} {' '.join(rng.choice(WORDS, size=rng.integers(2, 6)))}" for label in labels]
    labels = labels.astype(np.float32) if task == "stsb" else labels.astype(np.int64)
    if split.startswith("test"):
        labels = np.full_like(labels, -1)
    table["label"] = labels
    table["idx"] = np.arange(size, dtype=np.int32)
    return pd.DataFrame(table)


def write_parquet(folder: Path, task: str) -> None:
    (folder / task).mkdir(parents=True)
    for split in splits_of(task):
        examples(task, split).to_parquet(folder / task / f"{split}.parquet", index=False)


def _official_rows(task: str, table: pd.DataFrame, is_test: bool) -> tuple[list[str] | None, list[list]]:
    """Header (or none) and rows, column by column as in the official archives."""
    rows = list(table.itertuples(index=False))
    names = CLASSES.get(task)
    label = [row.label if names is None else names[row.label] for row in rows] if not is_test else [None] * len(rows)
    first = [row[0] for row in rows]
    second = [row[1] for row in rows]
    count = range(len(rows))

    if task == "cola":
        if is_test:
            return ["index", "sentence"], [[i, first[i]] for i in count]
        return None, [["gj04", label[i], "*" if label[i] == 0 else "", first[i]] for i in count]
    if task == "sst2":
        if is_test:
            return ["index", "sentence"], [[i, first[i]] for i in count]
        return ["sentence", "label"], [[first[i], label[i]] for i in count]
    if task == "mrpc":
        head = ["index" if is_test else "Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"]
        return head, [[i if is_test else label[i], 100 + i, 200 + i, first[i], second[i]] for i in count]
    if task == "stsb":
        head = ["index", "genre", "filename", "year", "old_index", "source1", "source2", "sentence1", "sentence2"]
        body = [[i, "main-news", "MSRpar", "2012test", i, "none", "none", first[i], second[i]] for i in count]
        return (head, body) if is_test else ([*head, "score"], [[*body[i], f"{label[i]:.3f}"] for i in count])
    if task == "qqp":
        if is_test:
            return ["id", "question1", "question2"], [[i, first[i], second[i]] for i in count]
        head = ["id", "qid1", "qid2", "question1", "question2", "is_duplicate"]
        return head, [[i, 2 * i, 2 * i + 1, first[i], second[i], label[i]] for i in count]
    if task == "mnli":
        head = ["index", "promptID", "pairID", "genre", "sentence1_binary_parse", "sentence2_binary_parse"]
        head += ["sentence1_parse", "sentence2_parse", "sentence1", "sentence2"]
        body = [[i, i, f"{i}e", "slate", "( a )", "( b )", "(A a)", "(B b)", first[i], second[i]] for i in count]
        if is_test:
            return head, body
        return [*head, "label1", "gold_label"], [[*body[i], label[i], label[i]] for i in count]
    head = ["index", "question", "sentence"] if task == "qnli" else ["index", "sentence1", "sentence2"]
    body = [[i, first[i], second[i]] for i in count]
    return (head, body) if is_test else ([*head, "label"], [[*body[i], label[i]] for i in count])


def write_tsv(folder: Path, task: str) -> None:
    (folder / FOLDERS[task]).mkdir(parents=True)
    for split in splits_of(task):
        header, rows = _official_rows(task, examples(task, split), split.startswith("test"))
        lines = ["\t".join(map(str, row)) for row in ([header] if header else []) + rows]
        path = folder / FOLDERS[task] / f"{split.replace('validation', 'dev')}.tsv"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_model(folder: Path, dropout: float = 0.1) -> None:
    """A BERT without head and a tokenizer for the words above, as `from_pretrained` finds them."""
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS]
    tokenizer = Tokenizer(WordLevel({word: index for index, word in enumerate(vocabulary)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=32,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )
    fast.save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        pad_token_id=0,
        # BERT's 0.02 is for hundreds of dimensions: with sixteen, all inputs would look alike to the head.
        initializer_range=0.3,
    )
    torch.manual_seed(0)
    BertModel(config).save_pretrained(folder)
