"""Another loss for the ascent gradient: in go the logits and labels of a pass, out comes what to ascend."""

from abc import abstractmethod
from typing import Any

from torch import Tensor

from ..components import Component, Description


class AscentLoss(Component):
    """
    Args:
        options: an instance of `options_class`.
    """

    #: The loss that the host computes, as it is.
    is_training_loss = False

    def __init__(self, options: Any = None):
        self.options = self.options_class() if options is None else options

    @abstractmethod
    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """
        Args:
            logits (`Tensor`): (examples, classes), in float32 or wider.
            labels (`Tensor`): (examples,), from 0.

        Returns:
            `Tensor`: (examples,), the loss of each.
        """


class TrainingLoss(AscentLoss):
    """The loss of training, as the host computes it."""

    description = Description(
        name="training loss",
        full_name="the training loss",
        story="The ascent gradient is that of the training loss.",
        source="Foret et al. 2021, equation 2",
    )
    is_training_loss = True

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        raise RuntimeError("The training loss is the host's to compute.")
