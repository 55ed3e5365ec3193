"""The options of `recipes/run_glue.py`."""

from dataclasses import dataclass, field

from transformers import TrainingArguments

from hf_sam import SAMConfig

from ..common.examples import ExampleArguments


@dataclass
class GlueArguments:
    """The task, the model and the data; how to train is in `TrainingArguments` and `SAMConfig`."""

    task_name: str = field(metadata={"help": "cola, sst2, mrpc, stsb, qqp, mnli, qnli, rte or wnli."})
    model_name_or_path: str = field(
        default="google-bert/bert-base-uncased", metadata={"help": "Model on the Hub, or a folder."}
    )
    data_dir: str | None = field(
        default=None, metadata={"help": "Folder with parquet or official TSV files. Default: nyu-mll/glue on the Hub."}
    )
    max_length: int = field(default=128, metadata={"help": "Longest input in tokens; longer ones are truncated."})
    pad_to_max_length: bool = field(
        default=False, metadata={"help": "Pad every batch to max_length instead of to its longest input."}
    )
    ignore_mismatched_sizes: bool = field(
        default=False, metadata={"help": "Allow a checkpoint whose head has another number of classes."}
    )


ARGUMENTS = (GlueArguments, ExampleArguments, TrainingArguments, SAMConfig)
