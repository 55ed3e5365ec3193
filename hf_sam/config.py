"""What the user can choose: every option of sharpness-aware training, its default and its validation."""

import json
import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from numbers import Integral, Real
from typing import Any

from .ascent_losses import ASCENT_LOSSES, DEFAULT_ASCENT_LOSS
from .checkpoints import SAM_CONFIG_NAME
from .methods import METHODS
from .options import read_mapping, read_options
from .perturbations import DEFAULT_PERTURBATION, PERTURBATIONS
from .schedule import RHO_SCHEDULES, Schedule


ASCENT_SCOPES = ("rank", "global", "micro_batch")
LOOKAHEADS = ("optimizer", "gradient")
LARGEST_RHO = 1e4


def _option(default: Any, help: str, choices: Any = None) -> Any:
    metadata = {"help": help} if choices is None else {"help": help, "choices": choices}
    return field(default=default, metadata=metadata)


@dataclass
class SAMConfig:
    r"""
    Options of sharpness-aware training. Stands alone, so it composes with any `TrainingArguments`, in Python and
    through `HfArgumentParser((TrainingArguments, SAMConfig))`.

    Three choices are independent of each other: *what to do* with the gradients (`method`), *where* to perturb
    (`perturbation`, `perturb_modules`), and *when* and how far (`rho`, `rho_schedule`, `rho_warmup`, `start`, `end`,
    `every`).

    Args:
        method (`str`, *optional*, defaults to `"sam"`):
            `"none"` (the stock Trainer, untouched), `"sam"` (AdamW-SAM; Foret et al. 2021,
            https://arxiv.org/abs/2010.01412, Algorithm 1), `"sampa"` (SAMPa-λ; Xie, Pethick and Cevher 2024,
            https://arxiv.org/abs/2410.10683, Algorithm 1), or one made known with [`register_method`].
        rho (`float`, *optional*, defaults to 0.05):
            Radius ρ, from 0 to 10⁴, of the ball in which the worst loss is sought, in the L2 norm over all trainable
            parameters.
        sampa_lambda (`float`, *optional*, defaults to 0.1):
            Weight λ in [0, 1] of the lookahead gradient in SAMPa's update, `(1 - λ) p + λ h`. Unused by other methods.
        ascent_scope (`str`, *optional*, defaults to `"rank"`):
            What the ascent gradient of SAM is averaged over. `"rank"`: each data-parallel rank perturbs along the
            gradient of its own window. This is the default because it is what the paper's own multi-device experiments
            do (Foret et al., section 3), it is where the gain of small ascent batches (m-sharpness) comes from, and it
            costs no communication. `"global"`: the gradient averaged over all ranks, so that the result does not
            depend on the number of ranks. `"micro_batch"`: every micro-batch has a perturbation of its own (mSAM). On
            one process without gradient accumulation the three are the same. In SAMPa the first
            two average over the ranks of a role, and with the last each pair of ranks perturbs along the gradient of
            its own data.
        lookahead (`str`, *optional*, defaults to `"optimizer"`):
            How SAMPa finds its lookahead weights. `"optimizer"`: a trial step of the base optimizer, as the authors'
            SGD script does (the paper gives no AdamW formula). `"gradient"`: `w - η h`, the formula as printed.
        same_dropout_mask (`bool`, *optional*, defaults to `True`):
            Whether the two gradients that belong to one window draw the same dropout masks, so that their difference
            comes from the weights alone.
        skip_nonfinite_updates (`bool`, *optional*, defaults to `False`):
            Leave out an update, on all ranks, whose gradient is NaN or infinite; the learning rate's schedule goes on.
            Otherwise it spreads to the weights, as with the stock Trainer. Costs one norm of the gradient. Under fp16
            the loss scaler does this anyway.
        method_args, perturbation_args (`dict`, *optional*):
            The options of the method and of the perturbation that are their own, by name (their documentation lists
            them). A mapping in Python and YAML, JSON on a command line.
        perturbation (`str`, *optional*, defaults to `"gradient"`):
            Where to perturb: one of `hf_sam.perturbations`, or one made known with [`register_perturbation`].
        perturb_modules (`list[str]`, *optional*, defaults to all trainable weights):
            Which weights are perturbed: patterns of names of parameters or modules in the style of a shell, and with a
            leading `!` those to leave out (`["encoder.layer.*", "!*.bias"]`). The radius is that of one norm over the
            weights that are left. All of them are trained as before.
        rho_schedule (`str`, *optional*, defaults to `"constant"`):
            How ρ changes from `rho` to `rho_end` over the updates that perturb: `"constant"` (not at all), `"linear"`,
            `"cosine"`, or `"learning_rate"` (in proportion to it, `rho` at its peak). The formulas are those of
            [`~hf_sam.schedule.Schedule`].
        rho_end (`float`, *optional*, defaults to 0):
            What ρ goes to, for the schedules that change it; above `rho` for one that grows.
        rho_warmup (`float`, *optional*, defaults to 0):
            Over how many of the first updates that perturb ρ grows from 0; below 1 a share of the run.
        start, end (`float`, *optional*, defaults to the whole run):
            The first update that perturbs, and the first one that no longer does, counted from 0; below 1 a share of
            the run. Updates outside are those of the stock Trainer, and cost one gradient.
        every (`int`, *optional*, defaults to 1):
            From `start` on, only each `every`-th update perturbs.
        probability (`float`, *optional*, defaults to 1):
            Of these, a share above 0 and at most 1 that is drawn at random, the same on all ranks. The draws depend on
            the seed of the run and the number of the update alone, so a resumed run makes the same ones.
        ascent_fraction (`float`, *optional*, defaults to 1):
            The part f of a window, above 0 and at most 1, that the ascent gradient is taken of: the first ⌈f k⌉ of k
            micro-batches, without accumulation the first ⌈f b⌉ of b rows. An update costs 1 + f gradients, and the
            logged loss is that of the part.
        ascent_loss (`str`, *optional*, defaults to `"training"`):
            The loss that the ascent gradient is taken of: the training loss, or one of `hf_sam.ascent_losses`. The
            logged loss and the descent gradient are those of the training loss.
        ascent_loss_args (`dict`, *optional*):
            The options of the ascent loss that are its own, as `method_args`.

    Options stay as they were made: `dataclasses.replace(config, rho=0.1)` makes others.

    Raises:
        `ValueError`: a value outside of what is allowed; the message names the field, the value and what is allowed.
            Or an option is set on an existing configuration.

    Example:

    ```python
    >>> from hf_sam import SAMConfig

    >>> SAMConfig(method="sampa", rho=0.1).to_dict()["sampa_lambda"]
    0.1
    ```
    """

    method: str = _option("sam", f"Training method. {METHODS.overview()}.", choices=METHODS)
    rho: float = _option(0.05, "Radius of the perturbation, in the L2 norm over all weights.")
    sampa_lambda: float = _option(0.1, "SAMPa: weight of the lookahead gradient in the update, from 0 to 1.")
    ascent_scope: str = _option("rank", "SAM: what the ascent gradient is averaged over.", choices=ASCENT_SCOPES)
    lookahead: str = _option("optimizer", "SAMPa: trial optimizer step, or w - lr * h.", choices=LOOKAHEADS)
    same_dropout_mask: bool = _option(True, "Draw the same dropout masks in both gradients of a window.")
    skip_nonfinite_updates: bool = _option(False, "Leave out updates whose gradient is NaN or infinite.")
    method_args: dict | str | None = field(
        default=None,
        metadata={"help": f"Options of the method's own, as JSON. {METHODS.options_overview()}."},
    )
    perturbation: str = _option(
        DEFAULT_PERTURBATION, f"Where to perturb. {PERTURBATIONS.overview()}.", choices=PERTURBATIONS
    )
    perturbation_args: dict | str | None = field(
        default=None,
        metadata={"help": f"Options of the perturbation's own, as JSON. {PERTURBATIONS.options_overview()}."},
    )
    perturb_modules: list[str] | None = field(
        default=None,
        metadata={"help": "Patterns of names of the weights or modules to perturb; ! leaves out; None is all."},
    )
    rho_schedule: str = _option("constant", "How rho changes from rho to rho_end.", choices=RHO_SCHEDULES)
    rho_end: float = _option(0.0, "What rho goes to, for schedules that change it.")
    rho_warmup: float = _option(0.0, "Updates over which rho grows from 0; below 1 a share of the run.")
    start: float = _option(0.0, "First update that perturbs; below 1 a share of the run.")
    end: float | None = _option(None, "First update that no longer perturbs; below 1 a share of the run.")
    every: int = _option(1, "Only each so-many-th update perturbs, from start on.")
    probability: float = _option(1.0, "Share of these updates that perturbs, drawn at random.")
    ascent_fraction: float = _option(1.0, "Part of a window that the ascent gradient is taken of.")
    ascent_loss: str = _option(
        DEFAULT_ASCENT_LOSS, f"Loss of the ascent gradient. {ASCENT_LOSSES.overview()}.", choices=ASCENT_LOSSES
    )
    ascent_loss_args: dict | str | None = field(
        default=None,
        metadata={"help": f"Options of the ascent loss's own, as JSON. {ASCENT_LOSSES.options_overview()}."},
    )

    def __post_init__(self):
        METHODS.require("SAMConfig.method", self.method)
        PERTURBATIONS.require("SAMConfig.perturbation", self.perturbation)
        ASCENT_LOSSES.require("SAMConfig.ascent_loss", self.ascent_loss)
        self._check_choice("ascent_scope", ASCENT_SCOPES)
        self._check_choice("lookahead", LOOKAHEADS)
        self._check_choice("rho_schedule", RHO_SCHEDULES)
        for name in ("rho", "rho_end"):
            self._check_number(
                name,
                lambda value: 0 <= value <= LARGEST_RHO,
                f"a finite number >= 0 and <= {LARGEST_RHO:g} (a radius beyond it is further than any trained weights "
                "are from zero; published ones are below 10)",
            )
        self._check_number("sampa_lambda", lambda value: 0 <= value <= 1, "a number from 0 to 1")
        for name in ("probability", "ascent_fraction"):
            self._check_number(name, lambda value: 0 < value <= 1, "a number above 0 and at most 1")
        self._check_updates("rho_warmup", "start")
        if self.end is not None:
            self._check_updates("end")
            if self.end in (0, 1):
                raise ValueError(
                    f"SAMConfig.end={self.end!r}: leave it out to perturb to the end of the run, or give a number of "
                    "updates above 1 or a share between 0 and 1."
                )
        if not isinstance(self.every, Integral) or isinstance(self.every, bool) or self.every < 1:
            raise ValueError(f"SAMConfig.every={self.every!r}: must be a whole number from 1.")
        self.every = int(self.every)
        for name in ("same_dropout_mask", "skip_nonfinite_updates"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"SAMConfig.{name}={getattr(self, name)!r}: must be True or False.")
        if self.skip_nonfinite_updates and METHODS[self.method].is_stock:
            raise ValueError(
                f"SAMConfig.skip_nonfinite_updates=True cannot be combined with method={self.method!r}, which is the "
                "stock Trainer, untouched: leave it False, or use method='sam' with rho=0."
            )
        self._check_patterns()
        for name in ("method_args", "perturbation_args", "ascent_loss_args"):
            setattr(self, name, read_mapping(f"SAMConfig.{name}", getattr(self, name)) or None)
            getattr(self, name.replace("args", "options"))
        self.__dict__["_is_made"] = True

    def __setattr__(self, name: str, value: Any) -> None:
        if "_is_made" in self.__dict__:
            raise ValueError(
                f"SAMConfig.{name}={value!r}: options stay as they were made. Make others with dataclasses.replace("
                f"config, {name}={value!r}), and set trainer.sam_config to them, which is checked and logged, and "
                "holds from the next update on."
            )
        super().__setattr__(name, value)

    @property
    def method_options(self) -> Any:
        """`method_args` as an instance of the method's own options class."""
        owner = f"SAMConfig.method_args of method {self.method!r}"
        return read_options(owner, METHODS[self.method].options_class, self.method_args)

    @property
    def perturbation_options(self) -> Any:
        """`perturbation_args` as an instance of the perturbation's own options class."""
        owner = f"SAMConfig.perturbation_args of perturbation {self.perturbation!r}"
        return read_options(owner, PERTURBATIONS[self.perturbation].options_class, self.perturbation_args)

    @property
    def ascent_loss_options(self) -> Any:
        """`ascent_loss_args` as an instance of the ascent loss's own options class."""
        owner = f"SAMConfig.ascent_loss_args of ascent loss {self.ascent_loss!r}"
        return read_options(owner, ASCENT_LOSSES[self.ascent_loss].options_class, self.ascent_loss_args)

    @property
    def schedule(self) -> Schedule:
        return Schedule(
            rho=self.rho,
            rho_end=self.rho_end,
            kind=self.rho_schedule,
            warmup=self.rho_warmup,
            start=self.start,
            end=self.end,
            every=self.every,
            probability=self.probability,
        )

    def _check_choice(self, name: str, allowed: tuple[str, ...]) -> None:
        value = getattr(self, name)
        if value not in allowed:
            raise ValueError(f"SAMConfig.{name}={value!r}: must be one of {', '.join(map(repr, allowed))}.")

    def _check_number(self, name: str, is_allowed: Callable[[float], bool], allowed: str) -> None:
        value = getattr(self, name)
        is_number = isinstance(value, Real) and not isinstance(value, bool)
        if not (is_number and math.isfinite(value) and is_allowed(value)):
            raise ValueError(f"SAMConfig.{name}={value!r}: must be {allowed}.")
        # NumPy's numbers too, which no JSON file takes.
        setattr(self, name, float(value))

    def _check_updates(self, *names: str) -> None:
        for name in names:
            allowed = "a whole number of updates >= 0, or a share of the run below 1"
            self._check_number(name, lambda value: 0 <= value < 1 or (value > 0 and value == int(value)), allowed)

    def _check_patterns(self) -> None:
        patterns = self.perturb_modules
        if patterns is None:
            return
        if not isinstance(patterns, (list, tuple)) or not patterns or not all(isinstance(p, str) for p in patterns):
            raise ValueError(
                f"SAMConfig.perturb_modules={patterns!r}: must be a list of patterns, such as ['bert.*', '!*.bias'], "
                "or None for all trainable weights."
            )
        self.perturb_modules = list(patterns)

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
