"""`TrainingArguments` as the recipes have them: values that the host takes and that train nothing are refused."""

import math
from dataclasses import dataclass, field

from transformers import TrainingArguments


# Option -> lowest value. The host takes less, and then fails in the middle of the work or saves what it was given.
LOWEST = {
    "per_device_train_batch_size": 1,
    "per_device_eval_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "learning_rate": 0,
    "weight_decay": 0,
    "max_grad_norm": 0,
    "adam_epsilon": 0,
    "label_smoothing_factor": 0,
    "dataloader_num_workers": 0,
    "seed": 0,
    "data_seed": 0,
    "save_total_limit": 1,
    "save_steps": 0,
    "logging_steps": 0,
    "eval_steps": 0,
}
BELOW_1 = ("adam_beta1", "adam_beta2", "label_smoothing_factor")
LARGEST_SEED = 2**32 - 1  # of NumPy


@dataclass
class RecipeTrainingArguments(TrainingArguments):
    """
    [`~transformers.TrainingArguments`] of a recipe.

    Raises:
        `ValueError`: a number is too small, too large or none, or the run would train for no update.
    """

    overwrite_output_dir: bool = field(
        default=False,
        metadata={"help": "Train anew although output_dir has checkpoints; these, and nothing else, are deleted."},
    )

    def __post_init__(self):
        for name, lowest in LOWEST.items():
            value = getattr(self, name)
            if isinstance(value, int | float) and not lowest <= value < math.inf:
                raise ValueError(f"{name}={value}: must be at least {lowest}, and finite.")
        for name in BELOW_1:
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least 0 and below 1.")
        for name in ("seed", "data_seed"):
            if (getattr(self, name) or 0) > LARGEST_SEED:
                raise ValueError(f"{name}={getattr(self, name)}: must be at most {LARGEST_SEED}.")
        if not 0 <= self.warmup_steps < math.inf:
            raise ValueError(
                f"warmup_steps={self.warmup_steps}: must be at least 0; below 1 it is a share of the run."
            )
        if self.max_steps != -1 and self.max_steps < 1:
            raise ValueError(
                f"max_steps={self.max_steps}: must be at least 1, or left out for num_train_epochs to decide."
            )
        if self.do_train and self.max_steps < 1 and not 0 < self.num_train_epochs < math.inf:
            raise ValueError(
                f"num_train_epochs={self.num_train_epochs}: must be above 0, or nothing would be trained; "
                "to evaluate only, set do_train to false."
            )
        super().__post_init__()
