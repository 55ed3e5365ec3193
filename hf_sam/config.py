"""What the user can choose: every option of sharpness-aware training, its default and its validation."""

import json
import math
import os
from dataclasses import asdict, dataclass, field, fields
from numbers import Real
from typing import Any

from .methods import METHODS


SAM_CONFIG_NAME = "sam_config.json"

ASCENT_SCOPES = ("rank", "global", "micro_batch")
LOOKAHEADS = ("optimizer", "gradient")


@dataclass
class SAMConfig:
    r"""
    Options of sharpness-aware training. Stands alone, so it composes with any `TrainingArguments`, in Python and
    through `HfArgumentParser((TrainingArguments, SAMConfig))`.

    Args:
        method (`str`, *optional*, defaults to `"sam"`):
            `"none"` (the stock Trainer, untouched), `"sam"` (AdamW-SAM; Foret et al. 2021,
            https://arxiv.org/abs/2010.01412, Algorithm 1) or `"sampa"` (SAMPa-λ; Xie, Pethick and Cevher 2024,
            https://arxiv.org/abs/2410.10683, Algorithm 1).
        rho (`float`, *optional*, defaults to 0.05):
            Radius ρ ≥ 0 of the ball in which the worst loss is sought, in the L2 norm over all trainable parameters.
        sampa_lambda (`float`, *optional*, defaults to 0.1):
            Weight λ in [0, 1] of the lookahead gradient in SAMPa's update, `(1 - λ) p + λ h`. Unused by other methods.
        ascent_scope (`str`, *optional*, defaults to `"rank"`):
            What the ascent gradient of SAM is averaged over. `"rank"`: each data-parallel rank perturbs along the
            gradient of its own window. This is the default because it is what the paper's own multi-device experiments
            do (Foret et al., section 3), it is where the gain of small ascent batches (m-sharpness) comes from, and it
            costs no communication. `"global"`: the gradient averaged over all ranks, so that the result does not
            depend on the number of ranks. `"micro_batch"`: every micro-batch has a perturbation of its own (mSAM). On
            one process without gradient accumulation the three are the same. Unused by SAMPa, which averages over the
            ranks of a role.
        lookahead (`str`, *optional*, defaults to `"optimizer"`):
            How SAMPa finds its lookahead weights. `"optimizer"`: a trial step of the base optimizer, as the authors'
            SGD script does (the paper gives no AdamW formula). `"gradient"`: `w - η h`, the formula as printed.
        same_dropout_mask (`bool`, *optional*, defaults to `True`):
            Whether the two gradients that belong to one window draw the same dropout masks, so that their difference
            comes from the weights alone.

    Raises:
        `ValueError`: a value outside of what is allowed; the message names the field, the value and what is allowed.

    Example:

    ```python
    >>> from hf_sam import SAMConfig

    >>> SAMConfig(method="sampa", rho=0.1).to_dict()["sampa_lambda"]
    0.1
    ```
    """

    method: str = field(default="sam", metadata={"help": "Training method.", "choices": tuple(METHODS)})
    rho: float = field(default=0.05, metadata={"help": "Radius of the perturbation, in the L2 norm over all weights."})
    sampa_lambda: float = field(
        default=0.1, metadata={"help": "SAMPa: weight of the lookahead gradient in the update, from 0 to 1."}
    )
    ascent_scope: str = field(
        default="rank",
        metadata={"help": "SAM: what the ascent gradient is averaged over.", "choices": ASCENT_SCOPES},
    )
    lookahead: str = field(
        default="optimizer",
        metadata={"help": "SAMPa: trial optimizer step, or w - lr * h.", "choices": LOOKAHEADS},
    )
    same_dropout_mask: bool = field(
        default=True, metadata={"help": "Draw the same dropout masks in both gradients of a window."}
    )

    def __post_init__(self):
        self._check_choice("method", tuple(METHODS))
        self._check_choice("ascent_scope", ASCENT_SCOPES)
        self._check_choice("lookahead", LOOKAHEADS)
        self._check_number("rho", lower=0.0, upper=math.inf, allowed="a finite number >= 0")
        self._check_number("sampa_lambda", lower=0.0, upper=1.0, allowed="a number from 0 to 1")
        if not isinstance(self.same_dropout_mask, bool):
            raise ValueError(f"SAMConfig.same_dropout_mask={self.same_dropout_mask!r}: must be True or False.")

    def _check_choice(self, name: str, allowed: tuple[str, ...]) -> None:
        value = getattr(self, name)
        if value not in allowed:
            raise ValueError(f"SAMConfig.{name}={value!r}: must be one of {', '.join(map(repr, allowed))}.")

    def _check_number(self, name: str, lower: float, upper: float, allowed: str) -> None:
        value = getattr(self, name)
        is_number = isinstance(value, Real) and not isinstance(value, bool)
        if not (is_number and math.isfinite(value) and lower <= value <= upper):
            raise ValueError(f"SAMConfig.{name}={value!r}: must be {allowed}.")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def save_pretrained(self, save_directory: str | os.PathLike) -> None:
        """Write `sam_config.json` into `save_directory`, which must exist."""
        with open(os.path.join(save_directory, SAM_CONFIG_NAME), "w", encoding="utf-8") as file:
            json.dump(self.to_dict(), file, indent=2)
            file.write("\n")

    @classmethod
    def from_pretrained(cls, directory: str | os.PathLike) -> "SAMConfig":
        """
        Read `sam_config.json` from a checkpoint or output directory.

        Raises:
            `FileNotFoundError`: the directory holds no `sam_config.json`.
            `ValueError`: the file has a key that this version does not know, or a value that is not allowed.
        """
        path = os.path.join(directory, SAM_CONFIG_NAME)
        with open(path, encoding="utf-8") as file:
            values = json.load(file)
        unknown = sorted(set(values) - {option.name for option in fields(cls)})
        if unknown:
            raise ValueError(
                f"{path}: unknown option(s) {', '.join(unknown)}; this version of hf_sam does not have them."
            )
        return cls(**values)
