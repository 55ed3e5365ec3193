"""What a pushed model says about how it was trained, added to the model card that the host writes."""

import json
import re
from dataclasses import MISSING, asdict, dataclass, fields, replace
from enum import Enum
from typing import Any

import accelerate
from huggingface_hub import ModelCard
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments

from ..ascent_losses import ASCENT_LOSSES, DEFAULT_ASCENT_LOSS, AscentLoss
from ..checkpoints import SAM_CONFIG_NAME
from ..components import Component
from ..config import SAMConfig
from ..methods import METHODS, Method
from ..perturbations import DEFAULT_PERTURBATION, PERTURBATIONS, Perturbation
from .card_results import hub_eval_results
from .card_texts import OPTION_LABELS, VALUE_TEXTS


# Arguments that say where and how a run was started or reported, not how the weights came about.
NOT_HYPERPARAMETERS = re.compile(
    r"^(output_dir|run_name|project|use_cpu|debug|disable_tqdm|report_to|local_rank|resume_from_checkpoint|do_\w+|"
    r"accelerator_config|fsdp_config|deepspeed|push_to_hub\w*|(hub|log|logging|save|dataloader|ddp|trackio)_\w+)$"
)
MAX_LOG_ROWS = 40
TOLD_WHEN_SET = (
    "perturb_modules",
    "rho_schedule",
    "rho_end",
    "rho_warmup",
    "start",
    "end",
    "every",
    "probability",
    "ascent_fraction",
)


@dataclass(frozen=True)
class TrainingRecord:
    """
    What the card tells about a run.

    Args:
        config ([`SAMConfig`]): its options.
        args ([`~transformers.TrainingArguments`]): the host's options.
        log_history (`list[dict]`): what was logged, as [`card_history`] returns it.
        gradients_per_update (`float`): gradients of one window that one rank computes for an update.
        pairs (`int`): pairs of ranks that share their data; 0 if every rank reads its own.
        total_train_batch_size (`int`): examples that one update really sees.
        model_id (`str`): name of the repository.
        model: the model, as saved.
        processing_class (*optional*): its tokenizer or processor.
        eval_split (`str`, *optional*): split of the data set that the model was evaluated on.
        base_folder (`str`, *optional*): name of the local folder that the weights were read from before training.
    """

    config: SAMConfig
    args: TrainingArguments
    log_history: list[dict[str, Any]]
    gradients_per_update: float
    pairs: int
    total_train_batch_size: int
    model_id: str
    model: Any
    processing_class: Any = None
    eval_split: str | None = None
    base_folder: str | None = None

    @property
    def method(self) -> type[Method]:
        return METHODS[self.config.method]

    @property
    def perturbation(self) -> type[Perturbation] | None:
        """`None` for the one that a method has unless told otherwise."""
        name = self.config.perturbation
        return None if name == DEFAULT_PERTURBATION else PERTURBATIONS[name]

    @property
    def ascent_loss(self) -> type[AscentLoss] | None:
        """`None` for the training loss."""
        name = self.config.ascent_loss
        return None if name == DEFAULT_ASCENT_LOSS else ASCENT_LOSSES[name]

    @property
    def components(self) -> list[type[Component]]:
        """What the card tells of."""
        return [one for one in (self.method, self.perturbation, self.ascent_loss) if one is not None]


def card_tags(config: SAMConfig) -> list[str]:
    return ["hf_sam", config.method]


def describe_data(content: str, description: str) -> str:
    """A card's `content` with `description` where the host's card asks for more information on the data."""
    heading = "## Training and evaluation data\n\n"
    missing = f"{heading}More information needed\n"
    if missing in content:
        return content.replace(missing, f"{heading}{description}\n", 1)
    return f"{content.rstrip()}\n\n{heading}{description}\n"


def complete_card(card: ModelCard, record: TrainingRecord) -> None:
    """Add to the host's card, in place: how to use the model, how it was trained, results, versions, citations."""
    text = card.text
    from_scratch = "This model was trained from scratch on"
    text = text.replace("This model is a fine-tuned version of [](https://huggingface.co/) on", from_scratch)
    if record.base_folder:
        # The host names none that is not on the Hub.
        fine_tuned = f"This model is a fine-tuned version of `{record.base_folder}`, a model in a local folder, on"
        text = text.replace(from_scratch, fine_tuned, 1)
    total = f"- total_train_batch_size: {record.total_train_batch_size}"
    text = re.sub(r"^- total_train_batch_size: \d+$", total, text, flags=re.MULTILINE)
    usage, heading = _usage(record), "\n## Model description\n"
    text = text.replace(heading, f"\n{usage}{heading}", 1) if heading in text else f"{text}\n{usage}"
    versions = f"- hf_sam {_hf_sam_version()}\n- Accelerate {accelerate.__version__}\n"
    heading = "### Framework versions\n\n"
    text = text.replace(heading, heading + versions, 1) if heading in text else f"{text}\n{heading}{versions}"
    section = "\n".join([_training_section(record), _log_section(record), _citation_section(record)])
    card.text = f"{text.rstrip()}\n\n{section}"
    if card.data.get("base_model") == "":
        card.data.base_model = None
    if card.data.get("eval_results"):
        template = card.data.eval_results[0]
        template = replace(template, dataset_split=template.dataset_split or record.eval_split)
        card.data.eval_results = hub_eval_results(template, record.log_history)


def _usage(record: TrainingRecord) -> str:
    imports, load = _loading_code(record)
    lines = ["## How to use", ""]
    if load:
        lines += ["```python", *imports, "", *load, "```", ""]
    lines += ["To train it further in the same way, with your own `args` and `train_dataset`:", "", "```python"]
    lines += ["from huggingface_hub import snapshot_download", "from hf_sam import SAMConfig, SAMTrainer", ""]
    folder = {"checkpoint": "last-checkpoint", "all_checkpoints": "checkpoint-<step>"}.get(record.args.hub_strategy)
    patterns = [SAM_CONFIG_NAME] if folder is None else [SAM_CONFIG_NAME, f"{folder}/*"]
    lines += [f'folder = snapshot_download("{record.model_id}", allow_patterns={json.dumps(patterns)})']
    lines += ["sam_config = SAMConfig.from_pretrained(folder)"]
    lines += ["trainer = SAMTrainer(model, args, train_dataset=train_dataset, sam_config=sam_config)"]
    if folder is None:
        lines += ["trainer.train()"]
    else:
        lines += [f'trainer.train(resume_from_checkpoint=f"{{folder}}/{folder}")  # goes on where this run was saved']
    return "\n".join([*lines, "```", ""])


def _loading_code(record: TrainingRecord) -> tuple[list[str], list[str]]:
    """The import lines and the statements that load what was pushed."""
    names, load = [], []
    imports = []
    model, model_id = record.model, record.model_id
    if isinstance(model, PreTrainedModel):
        names.append(type(model).__name__)
        load.append(f'model = {names[-1]}.from_pretrained("{model_id}")')
    elif hasattr(model, "peft_config"):
        base = model.get_base_model()
        names.append(type(base).__name__)
        imports.append("from peft import PeftModel")
        load.append(f'base_model = {names[-1]}.from_pretrained("{base.config._name_or_path or "..."}")')
        load.append(f'model = PeftModel.from_pretrained(base_model, "{model_id}")')
    processing_class = record.processing_class
    if isinstance(processing_class, PreTrainedTokenizerBase):
        names.append("AutoTokenizer")
        load.append(f'tokenizer = AutoTokenizer.from_pretrained("{model_id}")')
    elif processing_class is not None:
        names.append("AutoImageProcessor" if hasattr(processing_class, "image_mean") else "AutoProcessor")
        load.append(f'processor = {names[-1]}.from_pretrained("{model_id}")')
    if names:
        imports.append(f"from transformers import {', '.join(sorted(names))}")
    return imports, load


def _training_section(record: TrainingRecord) -> str:
    rows = [("Method", record.method.description.name), *_option_rows(record)]
    rows += [("World size", record.args.world_size)]
    if record.pairs:
        rows += [("Pairs of ranks", f"{record.pairs} (the two ranks of a pair see the same data)")]
        gradients = f"{2 * record.gradients_per_update:g}, side by side on the two ranks of a pair"
    else:
        gradients = f"{record.gradients_per_update:g}, one after the other"
    rows += [("Total train batch size", record.total_train_batch_size)]
    rows += [("Gradient computations per update", gradients)]
    changed = json.dumps(non_default_arguments(record.args), indent=2)
    return "\n".join(
        [
            "## Sharpness-aware training",
            "",
            f"{_story(record)} The same options, for a program to read, are in `{SAM_CONFIG_NAME}`.",
            "",
            _table(["Option", "Value"], rows),
            "### Non-default hyperparameters",
            "",
            "```json",
            changed,
            "```",
            "",
        ]
    )


def _story(record: TrainingRecord) -> str:
    return " ".join(component.description.story for component in record.components)


def _option_rows(record: TrainingRecord) -> list[tuple[str, Any]]:
    """The shared options that the method uses, those that were set, and the options of their own."""
    config, rows = record.config, []
    set_by_user = [name for name in TOLD_WHEN_SET if getattr(config, name) != getattr(SAMConfig, name)]
    for name in (*record.method.shared_options, *set_by_user):
        value = getattr(config, name)
        value = ", ".join(value) if isinstance(value, list) else value
        explained = VALUE_TEXTS.get((name, value))
        rows.append((OPTION_LABELS.get(name, name), f"{value} ({explained})" if explained else value))
    rows += asdict(config.method_options).items()
    if record.perturbation is not None:
        rows.append(("Perturbation", record.perturbation.description.full_name))
        rows += asdict(config.perturbation_options).items()
    if record.ascent_loss is not None:
        rows.append(("Loss of the ascent gradient", record.ascent_loss.description.full_name))
        rows += asdict(config.ascent_loss_options).items()
    return rows


def non_default_arguments(args: TrainingArguments) -> dict[str, Any]:
    """The hyperparameters among `args` that differ from their defaults, by name, as plain values."""
    values = args.to_dict()
    changed = {}
    for option in fields(args):
        if not option.init or NOT_HYPERPARAMETERS.match(option.name):
            continue
        default = option.default_factory() if option.default_factory is not MISSING else option.default
        default = default.value if isinstance(default, Enum) else default
        value = values[option.name]
        # The arguments fill some defaults of None in with an empty value.
        if value != default and (value or default):
            changed[option.name] = value
    return changed


def _log_section(record: TrainingRecord) -> str:
    logged = [entry for entry in record.log_history if "loss" in entry]
    columns = ["loss", *dict.fromkeys(key for entry in logged for key in entry if key.startswith("sam/"))]
    every = -(-len(logged) // MAX_LOG_ROWS)
    shown = logged[every - 1 :: every] if logged else []
    rows = [
        (entry["step"], _number(entry.get("epoch")), *(_number(entry.get(column)) for column in columns))
        for entry in shown
    ]
    lines = ["### Training log", ""]
    if not rows:
        return "\n".join([*lines, "Nothing was logged.", ""])
    told = "`loss` is the training loss at the perturbed weights."
    if "sam/sharpness" in columns or record.method.is_stock:
        told = "`loss` is the training loss without a perturbation, `sam/sharpness` how much higher it is with it."
    lines += [
        f"{told} The whole log is in `trainer_state.json`"
        + (f"; here is every {every}th entry." if every > 1 else "."),
        "",
    ]
    return "\n".join([*lines, _table(["Step", "Epoch", *columns], rows)])


def _citation_section(record: TrainingRecord) -> str:
    entries = [entry for component in record.components for entry in component.citations(record.config)]
    entries = list(dict.fromkeys(entries))
    return "\n".join(["## Citation", "", "```bibtex", "\n\n".join(entries), "```", ""])


def _table(header: list[str], rows: list[tuple]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(str(cell) for cell in line) + " |\n" for line in lines)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _hf_sam_version() -> str:
    from .. import __version__

    return __version__
