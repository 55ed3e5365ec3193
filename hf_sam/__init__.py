"""Sharpness-aware training for the Hugging Face Trainer."""

from .config import SAMConfig
from .trainer import SAMSeq2SeqTrainer, SAMTrainer, SAMTrainerMixin


__version__ = "0.1.0"

__all__ = ["SAMConfig", "SAMSeq2SeqTrainer", "SAMTrainer", "SAMTrainerMixin", "__version__"]
