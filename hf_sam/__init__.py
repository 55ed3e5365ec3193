"""Sharpness-aware training for the Hugging Face Trainer."""

from .callbacks import SAMPaSimilarity, WindowCallback
from .checkpoints.resume import get_last_checkpoint
from .config import SAMConfig
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
]
