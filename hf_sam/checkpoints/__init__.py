"""What is saved beside a stock checkpoint, and how it is read again."""

from .method_state import SAM_STATE_NAME
from .mixin import SAM_CONFIG_NAME, CheckpointMixin


__all__ = ["SAM_CONFIG_NAME", "SAM_STATE_NAME", "CheckpointMixin"]
