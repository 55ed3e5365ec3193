"""Another loss in the ascent pass of a host: in goes its `compute_loss`, out comes its value with another gradient."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.utils import extract_model_from_parallel
from torch import Tensor, nn
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from .base import AscentLoss


NO_LABEL = -100


class AscentPass:
    """
    Args:
        loss ([`AscentLoss`]): what ascent gradients are gradients of.
    """

    def __init__(self, loss: AscentLoss):
        self.loss = loss
        self._active = False

    @contextmanager
    def active(self) -> Iterator[None]:
        """Inside, losses have the gradient of the ascent loss."""
        self._active = not self.loss.is_training_loss
        try:
            yield
        finally:
            self._active = False

    def compute(
        self,
        compute_loss: Callable[..., Any],
        over_items: bool,
        model: nn.Module,
        inputs: Any,
        return_outputs: bool = False,
        **kwargs: Any,
    ) -> Any:
        """
        The host's `compute_loss`, all arguments of which are passed on.

        Args:
            over_items (`bool`): the host's losses are sums divided by `num_items_in_batch`, where it is given, and not
                means of their batch.

        Raises:
            `ValueError`: the batch or the outputs do not have one label for each row of logits.
        """
        if not self._active:
            return compute_loss(model, inputs, return_outputs=return_outputs, **kwargs)
        # The host may take labels out of its inputs.
        labels = inputs.get("labels")
        loss, outputs = compute_loss(model, inputs, return_outputs=True, **kwargs)
        values = self.loss(*self._labelled(model, outputs, labels))
        items = kwargs.get("num_items_in_batch") if over_items else None
        ascended = values.sum() / (max(1, len(values)) if items is None else items)
        # What is logged is the loss, what is ascended is another.
        loss = loss.detach() + (ascended - ascended.detach())
        return (loss, outputs) if return_outputs else loss

    def _labelled(self, model: nn.Module, outputs: Any, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """(examples or tokens, classes) and (examples or tokens,), those with a label."""
        logits = outputs["logits"] if isinstance(outputs, dict) else outputs[1]
        if torch.is_tensor(labels) and torch.is_tensor(logits) and _predicts_next(model):
            logits, labels = logits[..., :-1, :], labels[..., 1:]
        if not (torch.is_tensor(labels) and torch.is_tensor(logits) and logits.shape[:-1] == labels.shape):
            shapes = [tuple(value.shape) if torch.is_tensor(value) else value for value in (logits, labels)]
            raise ValueError(
                f"SAMConfig.ascent_loss of {self.loss.description.name} needs one label for each row of logits, and "
                f"got logits of shape {shapes[0]} with labels of shape {shapes[1]}: leave it at 'training'."
            )
        if labels.is_floating_point():
            raise ValueError(
                f"SAMConfig.ascent_loss of {self.loss.description.name} cannot be used with labels of type "
                f"{labels.dtype}, which are not classes: leave it at 'training'."
            )
        labels = labels.to(logits.device)
        labelled = labels != NO_LABEL
        return logits[labelled].to(torch.promote_types(logits.dtype, torch.float32)), labels[labelled]


def _predicts_next(model: nn.Module) -> bool:
    """Whether the label of a row of logits is one place further on, as the host decides for its own losses."""
    model = extract_model_from_parallel(model)
    model = model.get_base_model() if hasattr(model, "get_base_model") else model
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        return False
    generates = getattr(model, "loss_type", None) == "ForConditionalGeneration"
    return generates or type(model).__name__ in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()
