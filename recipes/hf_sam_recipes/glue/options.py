"""The options of `recipes/run_glue.py`."""

from dataclasses import dataclass, field

from hf_sam import SAMConfig

from ..common.examples import ExampleArguments
from ..common.training_options import RecipeTrainingArguments


@dataclass
class GlueArguments:
    """The task, the model and the data; how to train is in `RecipeTrainingArguments` and `SAMConfig`."""

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

    def __post_init__(self):
        if self.max_length < 1:
            raise ValueError(f"max_length={self.max_length}: must be at least 1; 128 is the recipes' own.")


ARGUMENTS = (GlueArguments, ExampleArguments, RecipeTrainingArguments, SAMConfig)
