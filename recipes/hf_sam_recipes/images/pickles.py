"""The original pickle files of CIFAR, read without running what they say."""

import io
import pickle
from pathlib import Path

import numpy as np
from datasets import Dataset, Features, Image, NamedSplit, Value
from PIL import Image as Pillow

from .pickle_bounds import MOST_BYTES, check_instructions, check_value


SIDE = 32  # pixels


class _PickledType:
    def __init__(self, name: str | bytes, *_):
        self.name = name.decode() if isinstance(name, bytes) else name

    def __setstate__(self, state: tuple):
        """The byte order and what only other types have."""


class _PickledArray:
    """An array of whole numbers in a pickle file. NumPy's own functions trust what they read and can crash on it."""

    def __init__(self, *_):
        self.array = None

    def __setstate__(self, state: tuple):
        _, shape, kind, is_fortran, data = state
        self.array = _from_buffer(data, kind, shape, "F" if is_fortran else "C").array


def _from_buffer(data: bytes, kind: _PickledType, shape: tuple[int, ...], order: str, *_) -> _PickledArray:
    if kind.name not in ("u1", "i1", "i2", "i4", "i8"):
        raise pickle.UnpicklingError(f"an array of {kind.name} has no place in an archive of images")
    pickled = _PickledArray()
    pickled.array = np.frombuffer(data, f"<{kind.name}").reshape(shape, order=order)
    return pickled


def _encode_latin1(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes as {encoding!r} have no place in an archive of images")
    return text.encode("latin1")


# What a pickled array is made of, from protocol 0 to 5. Where a function lives has changed with NumPy's versions.
ARRAY_BUILDERS = {
    ("numpy", "ndarray"): _PickledArray,
    ("numpy", "dtype"): _PickledType,
    ("numpy.core.multiarray", "_reconstruct"): _PickledArray,
    ("numpy._core.multiarray", "_reconstruct"): _PickledArray,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
    ("_codecs", "encode"): _encode_latin1,  # how Python 3 writes bytes up to protocol 2
}


class _ArrayUnpickler(pickle.Unpickler):
    """Builds arrays and Python's own containers, and nothing else: a pickle file may otherwise run any program."""

    def find_class(self, module: str, name: str):
        if (module, name) not in ARRAY_BUILDERS:
            raise pickle.UnpicklingError(f"{module}.{name} has no place in an archive of images")
        return ARRAY_BUILDERS[module, name]


def load_pickles(files: list[Path], split: str) -> Dataset:
    """
    The batches of a split, together, with the columns `img` and `label`.

    Raises:
        `ValueError`: a file is none of CIFAR's, or damaged.
    """
    images, labels = [], []
    for path in files:
        pixels, classes = _read_batch(path)
        # (n, 3072), colour by colour -> n images of (32, 32, 3)
        images += list(pixels.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1))
        labels += classes
    features = Features({"img": Image(), "label": Value("int64")})
    columns = {"img": [Pillow.fromarray(image) for image in images], "label": labels}
    return Dataset.from_dict(columns, features, split=NamedSplit(split))


def _read_batch(path: Path) -> tuple[np.ndarray, list[int]]:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"{path.stat().st_size} bytes are more than an archive of images has")
        content = path.read_bytes()
        check_instructions(content)
        batch = _ArrayUnpickler(io.BytesIO(content), encoding="bytes").load()
        check_value(batch, most=len(content))
        columns = {key.decode() if isinstance(key, bytes) else key: value for key, value in dict(batch).items()}
        arrays = {name: getattr(value, "array", value) for name, value in columns.items()}
        labels = np.asarray(next((arrays[name] for name in ("fine_labels", "labels") if name in arrays), None))
    # All that a broken pickle is known to raise; the last two where a size in it is wrong.
    except (
        pickle.UnpicklingError,
        EOFError,
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        AttributeError,
        MemoryError,
        OverflowError,
    ) as error:
        raise ValueError(
            f"{path}: not one of CIFAR's python pickle files ({error}); download the archive again."
        ) from error
    pixels = arrays.get("data")
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape[1:] != (3 * SIDE * SIDE,):
        raise ValueError(
            f"{path}: its 'data' must be bytes of shape (n, {3 * SIDE * SIDE}); download the archive again."
        )
    if labels.shape != (len(pixels),) or not np.can_cast(labels.dtype, np.int64):
        raise ValueError(
            f"{path}: must have as many labels, whole numbers, as images ({len(pixels)}); download the archive again."
        )
    return pixels, labels.tolist()
