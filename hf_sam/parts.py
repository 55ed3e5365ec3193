"""A part of a window, for an ascent gradient that costs less: in go micro-batches and a share, out come fewer of them,
or smaller ones.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from accelerate.utils import find_batch_size, recursively_apply


def part_of(window: Sequence[Any], fraction: float) -> Sequence[Any]:
    """
    The first ⌈f k⌉ of k micro-batches; of a single micro-batch the first ⌈f b⌉ of its b rows.

    The losses of a part are scaled as those of a whole window: to a mean, also where the host divides by the number of
    items (tokens) in the window, of which a part is taken to hold its share.

    Args:
        window (`Window`): at least one [`~hf_sam.engine.MicroBatch`].
        fraction (`float`): f, above 0 and at most 1.

    Raises:
        `ValueError`: the only micro-batch of a window has no tensors to take rows of.
    """
    if fraction == 1.0:
        return window
    if len(window) > 1:
        count = _share(fraction, len(window))
        return [_scaled(micro_batch, count / len(window), count) for micro_batch in window[:count]]
    (micro_batch,) = window
    try:
        rows = find_batch_size(micro_batch.inputs)
    except TypeError as error:
        raise ValueError(
            f"SAMConfig.ascent_fraction={fraction}: the rows of a batch of type {type(micro_batch.inputs).__name__} "
            f"are not known ({error}): use gradient accumulation, or leave ascent_fraction at 1."
        ) from error
    count = _share(fraction, rows)

    def first_rows(tensor: torch.Tensor) -> torch.Tensor:
        return tensor[:count] if tensor.dim() and len(tensor) == rows else tensor

    part = _scaled(micro_batch, count / rows, micro_batch.accumulation_steps)
    # What the host prepares of these rows is not what it prepares of all.
    return [replace(part, inputs=recursively_apply(first_rows, micro_batch.inputs), record=type(part.record)())]


def _share(fraction: float, of: int) -> int:
    # A share that is whole but for rounding (0.1 of 30) is not rounded up.
    return max(1, math.ceil(fraction * of - 1e-9))


def _scaled(micro_batch: Any, share: float, accumulation_steps: int) -> Any:
    items = micro_batch.num_items_in_batch
    items = None if items is None else items * share
    return replace(micro_batch, num_items_in_batch=items, accumulation_steps=accumulation_steps)
