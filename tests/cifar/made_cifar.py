"""CIFAR made by code: the same images as parquet files of the Hub and as the original archives, and tiny models."""

import io
import pickle
import struct
from pathlib import Path

import numpy as np
import torch
from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as Pillow
from transformers import (
    ConvNextImageProcessorPil,
    PreTrainedModel,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessorPil,
)


# Number of classes and files, written down a second time: the table of the recipes is what is tested.
CLASSES = {"cifar10": 10, "cifar100": 100}
ARCHIVES = {
    "cifar10": (
        "cifar-10-batches-py",
        {"train": [f"data_batch_{i}" for i in (1, 2, 3, 4, 5)], "test": ["test_batch"]},
    ),
    "cifar100": ("cifar-100-python", {"train": ["train"], "test": ["test"]}),
}
SIZES = {"train": 60, "test": 25}


def make_images(name: str, split: str) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (n, 32, 32, 3) and classes (n,). The class can be read off the brightness, so that there is a signal."""
    rng = np.random.default_rng([CLASSES[name], SIZES[split]])
    labels = rng.integers(CLASSES[name], size=SIZES[split])
    noise = rng.integers(0, 100, size=(SIZES[split], 32, 32, 3))
    images = noise + (150 * labels / CLASSES[name]).astype(int)[:, None, None, None]
    return images.astype(np.uint8), labels


def _encoded(image: np.ndarray, kind: str) -> dict:
    buffer = io.BytesIO()
    Pillow.fromarray(image).save(buffer, kind, **{"lossless": True} if kind == "WEBP" else {})
    return {"bytes": buffer.getvalue(), "path": None}


def hub_dataset(name: str, split: str, kind: str = "PNG") -> Dataset:
    """With the Hub's columns, and for CIFAR-100 with the Hub's spelling of "crab"."""
    from hf_sam_recipes.images.tasks import TASKS

    images, labels = make_images(name, split)
    label = ClassLabel(names=[{"crab": "cra"}.get(word, word) for word in TASKS[name].labels])
    table = {"img": [_encoded(image, kind) for image in images]}
    if name == "cifar10":
        return Dataset.from_dict(table | {"label": labels}, Features({"img": Image(), "label": label}))
    coarse = ClassLabel(names=[f"group {i:02}" for i in range(20)])
    features = Features({"img": Image(), "fine_label": label, "coarse_label": coarse})
    return Dataset.from_dict(table | {"fine_label": labels, "coarse_label": labels // 5}, features)


def write_parquet(folder: Path, name: str, kind: str = "PNG") -> None:
    (folder / name).mkdir(parents=True)
    for split in SIZES:
        hub_dataset(name, split, kind).to_parquet(folder / name / f"{split}.parquet")


class Python2Pickler(pickle._Pickler):
    """Writes what Python 2 wrote: text and bytes are one type, and NumPy's functions are where they were then."""

    def save_string(self, value):
        value = value.encode() if isinstance(value, str) else value
        self.write(pickle.BINSTRING + struct.pack("<i", len(value)) + value)
        self.memoize(value)

    def save_global(self, value, name=None):
        module, name = value.__module__, name or value.__name__
        self.write(pickle.GLOBAL + f"{module.replace('numpy._core', 'numpy.core')}\n{name}\n".encode())
        self.memoize(value)

    dispatch = pickle._Pickler.dispatch | {str: save_string, bytes: save_string, type: save_global}


def write_pickles(folder: Path, name: str) -> None:
    archive, files = ARCHIVES[name]
    (folder / archive).mkdir(parents=True)
    for split, batches in files.items():
        images, labels = make_images(name, split)
        parts = zip(np.array_split(images, len(batches)), np.array_split(labels, len(batches)), strict=True)
        for file_name, (pixels, classes) in zip(batches, parts, strict=True):
            batch = {
                "data": np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)).reshape(len(pixels), -1),
                "labels" if name == "cifar10" else "fine_labels": classes.tolist(),
                "filenames": [f"image_{i}.png" for i in range(len(pixels))],
            }
            if name == "cifar100":
                batch["coarse_labels"] = (classes // 5).tolist()
            with open(folder / archive / file_name, "wb") as file:
                Python2Pickler(file, protocol=2).dump(batch)


def make_model(kind: str, num_labels: int = 10) -> PreTrainedModel:
    if kind == "vit":
        return ViTForImageClassification(
            ViTConfig(
                hidden_size=16,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=32,
                image_size=16,
                patch_size=8,
                num_labels=num_labels,
            )
        )
    return ResNetForImageClassification(
        ResNetConfig(embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], layer_type="basic", num_labels=num_labels)
    )


def make_processor(kind: str):
    """Not the size of the images, so that resizing is a part of every test."""
    if kind == "vit":
        return ViTImageProcessorPil(size={"height": 16, "width": 16})
    return ConvNextImageProcessorPil(size={"shortest_edge": 24}, crop_pct=0.875, resample=2)


def write_model(folder: Path, kind: str) -> None:
    # The same one whatever was drawn before, which may be what a recipe draws.
    with torch.random.fork_rng():
        torch.manual_seed(11)
        make_model(kind).save_pretrained(folder)
    make_processor(kind).save_pretrained(folder)
