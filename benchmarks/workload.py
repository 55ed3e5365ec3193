"""What the benchmarks share: the model, a trainer per method, where the numbers come from, files and tables."""

import datetime
import json
import os
import platform
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path

import accelerate
import torch
import transformers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PrinterCallback,
    Trainer,
    TrainingArguments,
    ViTConfig,
    ViTForImageClassification,
    set_seed,
)

from hf_sam import SAMConfig, SAMTrainer, methods, perturbations
from hf_sam_recipes.common.launch import launcher


REPOSITORY = Path(__file__).resolve().parents[1]
# name -> options of SAMConfig; None is the stock Trainer with AdamW.
METHODS = {
    "stock": None,
    "none": {"method": "none"},
    "sam": {"method": "sam", "ascent_scope": "rank"},
    "sam-global": {"method": "sam", "ascent_scope": "global"},
    "sampa": {"method": "sampa", "sampa_lambda": 0.1},
}
# All that the package has: each method as it is, and SAM with each perturbation.
REGISTERED = {name: {"method": name} for name in methods.METHODS} | {
    f"sam, {name}": {"method": "sam", "perturbation": name}
    for name in perturbations.PERTURBATIONS
    if name != perturbations.DEFAULT_PERTURBATION
}


@dataclass(frozen=True)
class ModelSize:
    """A BERT; the defaults are those of MiniLM-L6. `length` is the number of tokens of every example."""

    hidden: int = 384
    layers: int = 6
    heads: int = 12
    intermediate: int = 1536
    vocabulary: int = 30522
    length: int = 64

    def build(self) -> BertForSequenceClassification:
        set_seed(0)
        return BertForSequenceClassification(
            BertConfig(
                vocab_size=self.vocabulary,
                hidden_size=self.hidden,
                num_hidden_layers=self.layers,
                num_attention_heads=self.heads,
                intermediate_size=self.intermediate,
                max_position_embeddings=max(512, self.length),
            )
        )

    def data(self, rows: int) -> "RandomTokens":
        return RandomTokens(rows, self)


@dataclass(frozen=True)
class ImageModelSize:
    """A ViT for square images of `image` pixels, cut into patches of `patch`."""

    hidden: int = 192
    layers: int = 6
    heads: int = 3
    intermediate: int = 768
    image: int = 32
    patch: int = 4

    def build(self) -> ViTForImageClassification:
        set_seed(0)
        return ViTForImageClassification(
            ViTConfig(
                hidden_size=self.hidden,
                num_hidden_layers=self.layers,
                num_attention_heads=self.heads,
                intermediate_size=self.intermediate,
                image_size=self.image,
                patch_size=self.patch,
                num_labels=10,
            )
        )

    def data(self, rows: int) -> "RandomImages":
        return RandomImages(rows, self)


def size_from(values: dict) -> ModelSize | ImageModelSize:
    """What `asdict` made of a size."""
    return (ImageModelSize if "image" in values else ModelSize)(**values)


# For tests and for trying out: the benchmark's steps in milliseconds.
TINY = ModelSize(hidden=32, layers=2, heads=2, intermediate=64, vocabulary=200, length=8)
TINY_IMAGES = ImageModelSize(hidden=32, layers=2, heads=2, intermediate=64, image=8)


class RandomTokens(torch.utils.data.Dataset):
    """`rows` examples of random tokens, made when they are asked for."""

    def __init__(self, rows: int, size: ModelSize):
        self.rows, self.size = rows, size

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(row)
        ids = torch.randint(self.size.vocabulary, (self.size.length,), generator=generator)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids[0] % 2}


class RandomImages(torch.utils.data.Dataset):
    """`rows` images of noise, made when they are asked for."""

    def __init__(self, rows: int, size: ImageModelSize):
        self.rows, self.size = rows, size

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(row)
        pixels = torch.randn(3, self.size.image, self.size.image, generator=generator)
        return {"pixel_values": pixels, "labels": torch.tensor(row % 10)}


def build_trainer(
    method: str, size: ModelSize | ImageModelSize, batch_size: int, updates: int, output_dir: str, callbacks=()
) -> Trainer:
    """A trainer for one of `METHODS` or `REGISTERED`: `updates` updates of `batch_size` examples per rank."""
    arguments = TrainingArguments(
        output_dir=output_dir,
        max_steps=updates,
        per_device_train_batch_size=batch_size,
        learning_rate=2e-5,
        weight_decay=0.01,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        ddp_find_unused_parameters=False,
        dataloader_pin_memory=False,
    )
    options = {**REGISTERED, **METHODS}[method]
    trainer_class, extra = (Trainer, {}) if options is None else (SAMTrainer, {"sam_config": SAMConfig(**options)})
    trainer = trainer_class(
        model=size.build(),
        args=arguments,
        train_dataset=size.data((updates + 1) * batch_size * arguments.world_size),
        callbacks=list(callbacks),
        **extra,
    )
    # It prints a summary after every run, in between the benchmark's own lines.
    trainer.remove_callback(PrinterCallback)
    # BERT's head averages the loss over the batch itself; told otherwise, the Trainer would scale it by the ranks.
    trainer.model_accepts_loss_kwargs = False
    return trainer


def trainable_bytes(model: torch.nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)


def worker_command(script: str, processes: int) -> tuple[list[str], dict[str, str]]:
    """How to start `script` on `processes` ranks (one: without a launcher), every rank with one thread."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": python_path()}
    return [*launcher(processes), script], environment


def python_path() -> str:
    return os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))


def require_world_size(expected: int):
    """Raises `RuntimeError` if this process does not belong to `expected` ranks, as a number would claim."""
    actual = int(os.environ.get("WORLD_SIZE", "1"))
    if actual != expected:
        raise RuntimeError(f"This worker was started for {expected} ranks, but WORLD_SIZE is {actual}.")


def provenance(*sizes: ModelSize | ImageModelSize) -> dict:
    """Date, versions, hardware, commit and model behind a result."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "git_commit": _git("rev-parse", "HEAD"),
        "uncommitted_changes": bool(_git("status", "--porcelain")),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "accelerate": accelerate.__version__,
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "model": asdict(sizes[0]) if len(sizes) == 1 else [asdict(size) for size in sizes],
    }


def _git(*arguments: str) -> str:
    result = subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True)
    return result.stdout.strip()


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def write_json(path: Path, content: dict):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")


def format_table(header: list[str], rows: list[list[str]]) -> str:
    """Columns as wide as their widest cell; the first one to the left, numbers to the right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in [header, *rows]
    ]
    return "\n".join(lines)
