"""The options of `recipes/run_cifar.py`."""

from dataclasses import dataclass, field

from hf_sam import SAMConfig

from ..common.examples import ExampleArguments
from ..common.training_options import RecipeTrainingArguments


@dataclass
class CifarArguments:
    """Data set, model and what is done to images; how to train is in `RecipeTrainingArguments` and `SAMConfig`."""

    dataset_name: str = field(metadata={"help": "cifar10 or cifar100."})
    model_name_or_path: str = field(
        default="google/vit-base-patch16-224-in21k", metadata={"help": "Model on the Hub, or a folder."}
    )
    from_scratch: bool = field(
        default=False,
        metadata={"help": "Take only the configuration and the processor from model_name_or_path, and new weights."},
    )
    data_dir: str | None = field(
        default=None,
        metadata={"help": "Folder with parquet or the original python pickle files. Default: uoft-cs on the Hub."},
    )
    crop_padding: int = field(
        default=4, metadata={"help": "Random crop: pixels of padding, before the image is resized. 0 for no crop."}
    )
    horizontal_flip: bool = field(default=True, metadata={"help": "Mirror half of the training images."})
    bf16_where_supported: bool = field(
        default=False,
        metadata={
            "help": "Set bf16 where the accelerator computes in it, unless fp16 is set. Off with false, not by --bf16."
        },
    )
    ignore_mismatched_sizes: bool = field(
        default=False, metadata={"help": "Allow a checkpoint whose head has another number of classes."}
    )


ARGUMENTS = (CifarArguments, ExampleArguments, RecipeTrainingArguments, SAMConfig)
