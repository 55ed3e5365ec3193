"""Tiny models, tokenizers and rows for trainers of other libraries, all made by code, all without dropout."""

from pathlib import Path

import torch
from datasets import Dataset
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
)


SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
WORDS = [f"w{number}" for number in range(28)]


def tokenizer() -> PreTrainedTokenizerFast:
    """A word is a token. Sequences of an encoder begin with `[CLS]` and end with `[SEP]`."""
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(SPECIAL + WORDS)}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="[SEP]", bos_token="[CLS]", **names)


def encoder_tokenizer() -> PreTrainedTokenizerFast:
    made = tokenizer()
    made.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return made


def _gpt2_config(**options) -> GPT2Config:
    rates = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    sizes = {"vocab_size": len(SPECIAL + WORDS), "n_positions": 32, "n_embd": 16, "n_layer": 2, "n_head": 2}
    return GPT2Config(**sizes, **rates, bos_token_id=2, eos_token_id=3, pad_token_id=0, **options)


def decoder() -> GPT2LMHeadModel:
    torch.manual_seed(1)
    return GPT2LMHeadModel(_gpt2_config())


def judge() -> GPT2ForSequenceClassification:
    """One number for a text."""
    torch.manual_seed(1)
    return GPT2ForSequenceClassification(_gpt2_config(num_labels=1))


def _bert_config(**options) -> BertConfig:
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    rates = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return BertConfig(vocab_size=len(SPECIAL + WORDS), max_position_embeddings=32, **sizes, **rates, **options)


def encoder() -> BertModel:
    torch.manual_seed(1)
    return BertModel(_bert_config())


def pair_classifier() -> BertForSequenceClassification:
    torch.manual_seed(1)
    return BertForSequenceClassification(_bert_config(num_labels=1))


def save(model, path: str) -> None:
    """With its tokenizer, by each rank for itself: `save_pretrained` writes weights on rank 0 alone."""
    Path(path).mkdir(parents=True, exist_ok=True)
    model.config.architectures = [type(model).__name__]
    Path(path, "config.json").write_text(model.config.to_json_string(use_diff=False))
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(weights, Path(path, "model.safetensors"))
    encoder_tokenizer().save_pretrained(path)


def text(generator: torch.Generator, longest: int = 8) -> str:
    length = int(torch.randint(2, longest, (), generator=generator))
    return " ".join(WORDS[i] for i in torch.randint(len(WORDS), (length,), generator=generator).tolist())


def rows(count: int, *columns: str, seed: int = 5, label: str | None = None, labels: int = 2) -> Dataset:
    """`count` rows with a text in each of `columns`, and a class from 0 in `label`."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for number in range(count):
        row = {column: text(generator) for column in columns}
        if label is not None:
            row[label] = number % labels
        made.append(row)
    return Dataset.from_list(made)
