"""The trainers of other libraries that the mixin stands in front of. A new host is one line of `HOSTS`.

In go a folder and options, out comes what a trainer is made of; packages are imported when a host is asked for.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import concatenate_datasets

from hf_sam import SAMConfig, SAMTrainerMixin
from tests.stack import tiny


ROWS = 20


@dataclass(frozen=True)
class Host:
    """
    Args:
        make (`Callable`): `(folder, arguments) -> (trainer class, keyword arguments)`.
        package (`str`): that must be installed.
        arguments (`dict`): of this host's training arguments, over `ARGUMENTS`.
        refused (`dict`): (method, ranks) -> words of the message with which the combination is refused.
    """

    make: Callable[[Path, dict[str, Any]], tuple[type, dict[str, Any]]]
    package: str = "transformers"
    arguments: dict[str, Any] = field(default_factory=dict)
    refused: dict[tuple[str, int], str] = field(default_factory=dict)

    @property
    def is_here(self) -> bool:
        return find_spec(self.package) is not None


# Windows of 4, 4 and 2 micro-batches on one shard of the rows; SGD, so that rounding errors stay what they are.
ARGUMENTS = {
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 4,
    "num_train_epochs": 2,
    "learning_rate": 0.05,
    "lr_scheduler_type": "constant",
    "max_grad_norm": 0.0,
    "optim": "sgd",
    "train_sampling_strategy": "sequential",
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": [],
    "disable_tqdm": True,
    "use_cpu": True,
    "bf16": False,
    "dataloader_pin_memory": False,
    "ddp_find_unused_parameters": False,
}


def _causal_lm(folder, arguments):
    from transformers import DataCollatorForLanguageModeling, Trainer, TrainingArguments

    words = tiny.tokenizer()
    data = tiny.rows(ROWS, "text").map(lambda row: words(row["text"]), remove_columns="text")
    return Trainer, {
        "model": tiny.decoder(),
        "args": TrainingArguments(folder, **arguments),
        "train_dataset": data,
        "data_collator": DataCollatorForLanguageModeling(words, mlm=False),
    }


def _lora(folder, arguments):
    from peft import LoraConfig, get_peft_model

    base, options = _causal_lm(folder, arguments)
    torch.manual_seed(2)
    adapters = LoraConfig(r=2, lora_alpha=4, target_modules=["c_attn"], lora_dropout=0.0, task_type="CAUSAL_LM")
    return base, options | {"model": get_peft_model(options["model"], adapters)}


def _seq2seq(folder, arguments):
    from transformers import (
        BartConfig,
        BartForConditionalGeneration,
        DataCollatorForSeq2Seq,
        Seq2SeqTrainer,
        Seq2SeqTrainingArguments,
    )

    words = tiny.tokenizer()
    torch.manual_seed(1)
    sides = {
        f"{side}_{name}": value
        for side in ("encoder", "decoder")
        for name, value in {"layers": 1, "ffn_dim": 32, "attention_heads": 2}.items()
    }
    special = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "decoder_start_token_id": 3}
    config = BartConfig(vocab_size=32, d_model=16, max_position_embeddings=32, dropout=0.0, **sides, **special)
    model = BartForConditionalGeneration(config)
    model.generation_config.max_length = 8
    data = tiny.rows(ROWS, "text", "target")
    data = data.map(
        lambda row: words(row["text"]) | {"labels": words(row["target"])["input_ids"]},
        remove_columns=["text", "target"],
    )
    args = Seq2SeqTrainingArguments(folder, predict_with_generate=True, eval_strategy="epoch", **arguments)
    return Seq2SeqTrainer, {
        "model": model,
        "args": args,
        "train_dataset": data,
        "eval_dataset": data.select(range(4)),
        "data_collator": DataCollatorForSeq2Seq(words, model),
    }


def _trl(trainer, folder, arguments, *, columns, model, label=None, **more):
    import trl

    config = getattr(trl, f"{trainer}Config")(str(folder), gradient_checkpointing=False, **arguments)
    data = tiny.rows(ROWS, *columns, label=label)
    if trainer == "KTO":
        data = data.map(lambda row: {"label": bool(row["label"])})
    if trainer in ("DPO", "KTO"):
        more["ref_model"] = model()
    made = {"model": model(), "args": config, "train_dataset": data, "processing_class": tiny.tokenizer()}
    return getattr(trl, f"{trainer}Trainer"), made | more


def count_of_early_words(completions, **_):
    """The reward of a completion: how many of its words are among the first half of all words."""
    return [float(sum(word in tiny.WORDS[:14] for word in completion.split())) for completion in completions]


_TEXT = {"columns": ["text"], "model": tiny.decoder}
_ONLINE = {"columns": ["prompt"], "model": tiny.decoder, "reward_funcs": count_of_early_words}
# Two prompts with two completions each are generated for two updates, and used twice.
ONLINE = {
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 2,
    "num_generations": 2,
    "steps_per_generation": 4,
    "num_iterations": 2,
    "max_completion_length": 4,
    "num_train_epochs": 1,
    "max_steps": 6,
}
GENERATES = "generates its inputs with the weights that are trained"


def _encoder(folder):
    from sentence_transformers import SentenceTransformer, models

    # Ranks share the folder, and one may read while another writes.
    path = str(Path(folder) / f"encoder-{os.environ.get('RANK', '0')}")
    tiny.save(tiny.encoder(), path)
    transformer = models.Transformer(path)
    return SentenceTransformer(
        modules=[transformer, models.Pooling(transformer.get_embedding_dimension())], device="cpu"
    )


def _sentences(loss, columns, label, folder, arguments):
    from sentence_transformers import (
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
        losses,
    )

    model = _encoder(folder)
    data = tiny.rows(ROWS, *columns, label=label)
    # Some rows are there twice, which matters to a batch sampler that keeps them apart.
    data = concatenate_datasets([data.select(range(ROWS - 6)), data.select(range(6))])
    torch.manual_seed(3)
    if loss == "SoftmaxLoss":
        made = losses.SoftmaxLoss(model, model.get_embedding_dimension(), 2)
    else:
        made = getattr(losses, loss)(model)
    return SentenceTransformerTrainer, {
        "model": model,
        "args": SentenceTransformerTrainingArguments(str(folder), **arguments),
        "train_dataset": data,
        "loss": made,
    }


def _two_losses(folder, arguments):
    """A data set with a loss that has weights, and one with a loss that has none."""
    base, options = _sentences("SoftmaxLoss", ["a", "b"], "label", folder, arguments)
    from sentence_transformers import losses

    pairs = tiny.rows(ROWS, "a", "b", seed=6)
    options["loss"] = {"classes": options["loss"], "pairs": losses.MultipleNegativesRankingLoss(options["model"])}
    return base, options | {"train_dataset": {"classes": options["train_dataset"], "pairs": pairs}}


def _cross_encoder(folder, arguments):
    from sentence_transformers.cross_encoder import (
        CrossEncoder,
        CrossEncoderTrainer,
        CrossEncoderTrainingArguments,
        losses,
    )

    path = str(Path(folder) / f"pairs-{os.environ.get('RANK', '0')}")
    tiny.save(tiny.pair_classifier(), path)
    model = CrossEncoder(path, num_labels=1, device="cpu")
    data = tiny.rows(ROWS, "a", "b", label="label").map(lambda row: {"label": float(row["label"])})
    return CrossEncoderTrainer, {
        "model": model,
        "args": CrossEncoderTrainingArguments(str(folder), **arguments),
        "train_dataset": data,
        "loss": losses.BinaryCrossEntropyLoss(model),
    }


_NEGATIVES = partial(_sentences, "MultipleNegativesRankingLoss", ["a", "b"], None)
_ONLY_ON_ONE = {("sampa", 2): "a loss that has weights of its own"}
_NEVER = {("sampa", 1): GENERATES, ("sampa", 2): GENERATES}
_ST = "sentence_transformers"
# Losses of normalised embeddings have steep gradients, and the pooler of a BERT is not used.
_OF_EMBEDDINGS = {"learning_rate": 0.01, "ddp_find_unused_parameters": True}

HOSTS: dict[str, Host] = {
    "Trainer": Host(_causal_lm),
    "Trainer, LoRA": Host(_lora, "peft"),
    "Seq2SeqTrainer": Host(_seq2seq),
    "trl SFT": Host(partial(_trl, "SFT", **_TEXT), "trl"),
    "trl SFT, padding-free": Host(
        partial(_trl, "SFT", **_TEXT), "trl", arguments={"padding_free": True, "max_length": None}
    ),
    "trl DPO": Host(partial(_trl, "DPO", columns=["prompt", "chosen", "rejected"], model=tiny.decoder), "trl"),
    "trl KTO": Host(partial(_trl, "KTO", columns=["prompt", "completion"], label="label", model=tiny.decoder), "trl"),
    "trl Reward": Host(partial(_trl, "Reward", columns=["chosen", "rejected"], model=tiny.judge), "trl"),
    "trl GRPO": Host(partial(_trl, "GRPO", **_ONLINE), "trl", arguments=ONLINE, refused=_NEVER),
    "trl RLOO": Host(partial(_trl, "RLOO", **_ONLINE), "trl", arguments=ONLINE | {"beta": 0.0}, refused=_NEVER),
    "SentenceTransformer, MultipleNegatives": Host(_NEGATIVES, _ST, arguments=_OF_EMBEDDINGS),
    "SentenceTransformer, no duplicates": Host(
        _NEGATIVES, _ST, arguments=_OF_EMBEDDINGS | {"batch_sampler": "no_duplicates"}
    ),
    "SentenceTransformer, SoftmaxLoss": Host(
        partial(_sentences, "SoftmaxLoss", ["a", "b"], "label"), _ST, arguments=_OF_EMBEDDINGS, refused=_ONLY_ON_ONE
    ),
    "SentenceTransformer, two losses": Host(_two_losses, _ST, arguments=_OF_EMBEDDINGS, refused=_ONLY_ON_ONE),
    "CrossEncoder": Host(_cross_encoder, _ST),
}


def make_trainer(
    name: str,
    folder: Path,
    config: SAMConfig | None,
    over: type | None = None,
    evaluated: bool = False,
    **arguments,
) -> Any:
    """
    The host as it is, or with the mixin in front where there is a `config`.

    Args:
        over (`type`, *optional*): a class to stand directly before the host.
        evaluated (`bool`, *optional*, defaults to `False`): on its training data.
    """
    host = HOSTS[name]
    Path(folder).mkdir(parents=True, exist_ok=True)
    base, options = host.make(folder, ARGUMENTS | host.arguments | arguments)
    if evaluated:
        options["eval_dataset"] = options["train_dataset"]
    if over is not None:
        base = type(over.__name__ + base.__name__, (over, base), {})
    if config is not None:
        base, options = type("Sharp" + base.__name__, (SAMTrainerMixin, base), {}), options | {"sam_config": config}
    return base(**options)


HERE = [
    pytest.param(name, marks=pytest.mark.skipif(not host.is_here, reason=f"needs {host.package}"))
    for name, host in HOSTS.items()
]
