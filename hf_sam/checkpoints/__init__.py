"""What is saved beside a stock checkpoint, whether a checkpoint is whole, and how it is read again."""

from .method_state import SAM_STATE_NAME
from .mixin import CheckpointMixin
from .resume import get_last_checkpoint
from .state import SAM_CONFIG_NAME
from .whole import WholeCheckpointMixin


__all__ = ["SAM_CONFIG_NAME", "SAM_STATE_NAME", "CheckpointMixin", "WholeCheckpointMixin", "get_last_checkpoint"]
