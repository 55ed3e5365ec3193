"""Images as training examples: what a model sees is a function of a seed, the epoch and the number of the image."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from datasets import Dataset, NamedSplit
from PIL import Image, ImageOps
from torch.utils import data
from transformers import BaseImageProcessor

from .pickles import SIDE


@dataclass(frozen=True)
class Augmentation:
    """
    Random crop with padding, then random horizontal flip, at the size that the image has.

    Args:
        padding (`int`, *optional*, defaults to 4):
            Pixels of black on every side, out of which a part of the image's own size is cut. 0 means no crop.
        flip (`bool`, *optional*, defaults to `True`):
            Mirror half of the images. Wrong where left and right mean something (digits).

    Raises:
        `ValueError`: `padding` is negative, or not below the side of an image.
    """

    padding: int = 4
    flip: bool = True

    def __post_init__(self):
        if self.padding < 0:
            raise ValueError(f"crop_padding={self.padding}: must be at least 0.")
        if self.padding >= SIDE:
            raise ValueError(
                f"crop_padding={self.padding}: must be below {SIDE}, the side of an image, or some crops would hold "
                "nothing of it."
            )

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        # Both are always drawn, so that one option does not change what another one draws.
        left, top = rng.integers(0, 2 * self.padding + 1, size=2).tolist()
        mirrored = bool(rng.integers(2))
        if self.padding:
            width, height = image.size
            image = ImageOps.expand(image, self.padding).crop((left, top, left + width, top + height))
        return ImageOps.mirror(image) if self.flip and mirrored else image


class ImageExamples(data.Dataset):
    """
    Images as they are, for evaluation.

    Args:
        images (`Dataset`): With the columns `image` (pillow) and `label`.
        processor (`BaseImageProcessor`): Of the model: size, scale, mean and standard deviation.

    Item `i` is `{"pixel_values": float32 array of shape (3, height, width), "labels": int}`.
    """

    def __init__(self, images: Dataset, processor: BaseImageProcessor):
        self.images = images
        self.processor = processor

    @property
    def split(self) -> NamedSplit | None:
        """Of the images; the model card says on which split a model was evaluated."""
        return self.images.split

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, np.ndarray | int]:
        row = self.images[index]
        return self._example(row["image"].convert("RGB"), row["label"])

    def _example(self, image: Image.Image, label: int) -> dict[str, np.ndarray | int]:
        pixels = self.processor(images=image, return_tensors="np")["pixel_values"][0]
        return {"pixel_values": pixels, "labels": label}


class AugmentedExamples(ImageExamples):
    """
    Images for training. Item `(epoch, index)` depends on `(seed, epoch, index)` and on nothing else, so it is the same
    on every rank, with and without workers, read ahead or after resuming. [`EpochSampler`] makes such keys.

    Args:
        augmentation (`Augmentation`): What happens to an image.
        seed (`int`): Not negative.
    """

    def __init__(self, images: Dataset, processor: BaseImageProcessor, augmentation: Augmentation, seed: int):
        super().__init__(images, processor)
        self.augmentation = augmentation
        self.seed = seed

    def unaugmented(self) -> ImageExamples:
        """The same images as they are."""
        return ImageExamples(self.images, self.processor)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, np.ndarray | int]:
        # A plain index fails here: a sampler that knows no epochs would show the same pixels in each of them.
        epoch, index = key
        row = self.images[index]
        # NumPy takes (a, b) and (a, b, 0) for the same seed, and the sampler has (seed, epoch).
        rng = np.random.default_rng((self.seed, epoch, index + 1))
        return self._example(self.augmentation(row["image"].convert("RGB"), rng), row["label"])


class EpochSampler(data.Sampler[tuple[int, int]]):
    """
    The keys `(epoch, index)` of one epoch. The epoch travels with the index because nothing else reaches the examples
    in time: accelerate tells a dataset its epoch only in some set-ups, the workers of a loader hold copies of it, and
    SAMPa reads the first window of an epoch before the Trainer begins it.

    Args:
        size (`int`): Number of examples.
        seed (`int`): The order is a function of it and the epoch. Not negative.
        shuffle (`bool`, *optional*, defaults to `True`): Otherwise the order of the dataset.
    """

    def __init__(self, size: int, seed: int, shuffle: bool = True):
        self.size = size
        self.seed = seed
        self.shuffle = shuffle
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch = self.epoch
        order = np.random.default_rng((self.seed, epoch)).permutation(self.size) if self.shuffle else range(self.size)
        return ((epoch, int(index)) for index in order)
