"""Sharpness-aware training for the Hugging Face Trainer."""

from .ascent_losses import register_ascent_loss
from .checkpoints import get_last_checkpoint
from .config import SAMConfig
from .diagnostics import SAMPaSimilarity, WindowCallback
from .methods import register_method
from .perturbations import register_perturbation
from .trainer import SAMSeq2SeqTrainer, SAMTrainer, SAMTrainerMixin


__version__ = "0.1.0"

__all__ = [
    "SAMConfig",
    "SAMPaSimilarity",
    "SAMSeq2SeqTrainer",
    "SAMTrainer",
    "SAMTrainerMixin",
    "WindowCallback",
    "__version__",
    "get_last_checkpoint",
    "register_ascent_loss",
    "register_method",
    "register_perturbation",
]
