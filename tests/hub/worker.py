"""One rank of a training that pushes: runs the entries of a plan one after the other, on real processes."""

import hashlib
import json
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from huggingface_hub import HfApi, snapshot_download
from tokenizers import Tokenizer, models
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PreTrainedTokenizerFast,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from hf_sam import SAMConfig, SAMTrainer
from tests.garbage import spare_what_is_imported


VOCABULARY, LENGTH, EXAMPLES = 30, 6, 48


def main(plan_path: str, folder: Path) -> None:
    with open(plan_path, encoding="utf-8") as file:
        plan = json.load(file)
    spare_what_is_imported()
    rank, ranks = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    for entry in plan["entries"]:
        # What follows on stderr belongs to this entry.
        print(f"\n=== {entry['name']}", file=sys.stderr, flush=True)
        os.environ.pop("HF_TOKEN", None)
        if entry.get("token"):
            os.environ["HF_TOKEN"] = os.environ[entry["token"]]
        result = run(entry, folder / entry["name"])
        assert result["ranks"] == ranks == plan["ranks"], f"{result['ranks']} ranks, not {plan['ranks']}"
        (folder / f"{entry['name']}-{rank}.json").write_text(json.dumps(result))
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def run(entry: dict, output_dir: Path) -> dict:
    if "load" in entry:
        model = BertForSequenceClassification.from_pretrained(entry["load"])
        tokenizer = PreTrainedTokenizerFast.from_pretrained(entry["load"])
        config = SAMConfig.from_pretrained(snapshot_download(entry["load"], allow_patterns="sam_config.json"))
        loaded = hash_of(model)
    else:
        set_seed(0)
        size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
        model = BertForSequenceClassification(BertConfig(vocab_size=VOCABULARY, num_labels=2, **size))
        vocabulary = {f"w{i}": i for i in range(VOCABULARY)}
        words = Tokenizer(models.WordLevel(vocabulary, unk_token="w0"))
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="w0")
        config, loaded = SAMConfig(**entry["sam"]), None
    arguments = dict(entry["arguments"])
    if "hub_token" in arguments:
        arguments["hub_token"] = os.environ[arguments["hub_token"]]
    args = TrainingArguments(
        output_dir=str(output_dir),
        per_device_train_batch_size=4,
        learning_rate=1e-2,
        max_steps=6,
        save_steps=2,
        logging_steps=1,
        use_cpu=True,
        report_to=[],
        ddp_find_unused_parameters=False,
        **arguments,
    )
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(VOCABULARY, (EXAMPLES, LENGTH), generator=generator)
    dataset = [{"input_ids": row, "labels": int(row[0] > row[1])} for row in ids]
    trainer = SAMTrainer(
        model,
        args,
        train_dataset=dataset,
        processing_class=tokenizer,
        callbacks=[LogIn(entry["log_in_with"])] if "log_in_with" in entry else None,
        sam_config=config,
    )
    trainer.train(resume_from_checkpoint=pull(**entry["resume_from"]) if "resume_from" in entry else None)
    card = {"tags": ["of-the-user"], "data_description": "Random words."}
    answer = trainer.push_to_hub(**card) if args.hub_model_id else None
    return {
        "ranks": args.world_size,
        "steps": trainer.state.global_step,
        "weights": hash_of(trainer.model),
        "loaded": loaded,
        "answer": None if answer is None else str(answer),
    }


class LogIn(TrainerCallback):
    """Somebody logs in while the training runs, after the first save."""

    def __init__(self, token: str):
        self.token = token

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == 3:
            os.environ["HF_TOKEN"] = os.environ[self.token]


def pull(repo_id: str, commit_title: str, checkpoint: str) -> str:
    """Download a checkpoint as it was after the commit with this title."""
    revision = next(c.commit_id for c in HfApi().list_repo_commits(repo_id) if c.title == commit_title)
    folder = snapshot_download(repo_id, revision=revision, allow_patterns=f"{checkpoint}/*")
    return os.path.join(folder, checkpoint)


def hash_of(model: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode() + tensor.contiguous().view(-1).numpy().tobytes())
    return digest.hexdigest()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
