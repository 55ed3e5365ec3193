"""In: a model and a checkpoint whose file has other names for its weights. Out: the model with them in place."""

import json
import os

import safetensors
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME


def load_renamed_weights(model: nn.Module, checkpoint: str) -> bool:
    """
    Load a checkpoint that only `from_pretrained` can read. `save_pretrained` of transformers 5 writes the weights of
    many models (ViT in 5.23) under the names that they had before. The Trainer compares names as they are and resumes
    without these weights, with a warning (huggingface/transformers issue 43701).

    Args:
        model (`nn.Module`): On any device. Its weights are replaced in place, or left alone.
        checkpoint (`str`): A folder that `save_pretrained` has written.

    Returns:
        `bool`: whether the checkpoint was of this kind. If not, it is the Trainer's to load.
    """
    if not isinstance(model, PreTrainedModel) or _names(checkpoint) <= model.state_dict().keys():
        return False
    saved = type(model).from_pretrained(checkpoint, dtype=model.dtype)
    model.load_state_dict(saved.state_dict())
    return True


def _names(checkpoint: str) -> set[str]:
    """The names in the weights' files; none where there are only other files, such as those of an adapter."""
    index = os.path.join(checkpoint, SAFE_WEIGHTS_INDEX_NAME)
    if os.path.isfile(index):
        with open(index, encoding="utf-8") as file:
            return set(json.load(file)["weight_map"])
    path = os.path.join(checkpoint, SAFE_WEIGHTS_NAME)
    if not os.path.isfile(path):
        return set()
    with safetensors.safe_open(path, framework="pt") as file:
        return set(file.keys())
