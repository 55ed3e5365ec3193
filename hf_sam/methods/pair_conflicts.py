"""What methods that compute two independent gradients at the same time cannot be combined with."""

from torch import nn

from ..components import Conflict
from .base import NEEDS_ASCENT_GRADIENT


ON_SEVERAL_RANKS = "on several ranks"

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

#: The exchange in a pair of ranks does not work with it.
WITHOUT_PAIRS = (
    Conflict(
        option="dispatch_batches=True of accelerator_config",
        found=lambda s: s.several_ranks and s.accelerator.dispatch_batches,
        why="since the ranks of a pair are at different windows",
        instead="set it to False or None",
        under=ON_SEVERAL_RANKS,
    ),
    Conflict(
        option="train_sampling_strategy='batch_rebalance'",
        found=lambda s: s.several_ranks and getattr(s.args, "train_sampling_strategy", "") == "batch_rebalance",
        why="which splits the data over all ranks by itself",
        instead="use 'group_by_length'",
        under=ON_SEVERAL_RANKS,
    ),
    Conflict(
        option="gradient_as_bucket_view=True of DistributedDataParallelKwargs",
        found=lambda s: s.ddp_option("gradient_as_bucket_view"),
        why="since it keeps gradients from one pass to the next",
        instead="leave it False",
        under=ON_SEVERAL_RANKS,
    ),
    Conflict(
        option="ddp_static_graph=True",
        found=lambda s: s.several_ranks and getattr(s.args, "ddp_static_graph", False) and s.accumulates,
        why="under which DDP expects every pass to be synchronised",
        instead="leave it False, or use no gradient accumulation",
        under="with a pass that is not synchronised",
    ),
    Conflict(
        option="SyncBatchNorm",
        found=lambda s: s.several_ranks and any(isinstance(m, nn.SyncBatchNorm) for m in s.model.modules()),
        why="since the ranks hold different weights and data",
        instead="use BatchNorm",
        under=ON_SEVERAL_RANKS,
    ),
    Conflict(
        option="comm_hook={!r} of DistributedDataParallelKwargs",
        found=lambda s: {"no": None}.get(hook := getattr(s.ddp_option("comm_hook"), "value", "no"), hook),
        why="since it has a gradient exchange of its own",
        instead="leave comm_hook at 'no'",
        under=ON_SEVERAL_RANKS,
    ),
)
