"""What methods that compute two independent gradients at the same time cannot be combined with."""

from ..components import Conflict
from ..host_classes import generates_inputs
from ..parallel.conflicts import PAIR_CONFLICTS
from .base import NEEDS_ASCENT_GRADIENT, STATIC_GRAPH


#: Of methods that look at a window before its turn.
GENERATES_INPUTS = Conflict(
    option="{}",
    found=lambda s: generates_inputs(s.trainer),
    why="which generates its inputs with the weights that are trained, while this method looks at a window before its "
    "turn, at other weights",
    instead="use method='sam'",
)

#: Nothing would be saved by it, on any number of ranks.
WITHOUT_PARALLEL_GRADIENTS = (
    Conflict(
        option="every={}",
        found=lambda s: s.config.every if s.config.every > 1 else None,
        why="since an update of two independent gradients takes no longer than a stock one, and needs the gradient of "
        "the update before",
        instead="leave every at 1, or use method='sam'",
    ),
    Conflict(
        option="probability={}",
        found=lambda s: s.config.probability if s.config.probability < 1 else None,
        why="since an update of two independent gradients takes no longer than a stock one, and needs the gradient of "
        "the update before",
        instead="leave probability at 1, or use method='sam'",
    ),
    NEEDS_ASCENT_GRADIENT,
    Conflict(
        option="ascent_scope='micro_batch'",
        found=lambda s: s.config.ascent_scope == "micro_batch" and s.accumulates,
        why="since a gradient of each micro-batch would have to be kept until the next update",
        instead="use more pairs of ranks and no accumulation, or method='sam'",
        under="with gradient accumulation",
    ),
)

#: On several ranks, also because pairs of them look at different windows.
WITHOUT_PAIRS = (
    *PAIR_CONFLICTS,
    STATIC_GRAPH,
)
