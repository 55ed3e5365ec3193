"""What two ranks that look at different windows at the same time cannot work with."""

from torch.nn import SyncBatchNorm

from ..components import Conflict


ON_SEVERAL_RANKS = "on several ranks"

PAIR_CONFLICTS = (
    Conflict(
        option="a loss that has weights of its own",
        found=lambda s: s.several_ranks and s.weights_beside_model,
        why="which are not in DistributedDataParallel, so that nobody would exchange their gradients",
        instead="make them a part of the model, or use method='sam'",
        under=ON_SEVERAL_RANKS,
    ),
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
        option="SyncBatchNorm",
        found=lambda s: s.several_ranks and any(isinstance(m, SyncBatchNorm) for m in s.model.modules()),
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
