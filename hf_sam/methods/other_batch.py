"""SAM-db: the ascent gradient is that of another window than the one that is descended on."""

from torch import Tensor

from ..components import Conflict, Description
from ..engine import GradientEngine
from .base import NEEDS_ASCENT_GRADIENT, Update
from .pair_conflicts import GENERATES_INPUTS
from .sam import SAM, SAM_BIBTEX


class OtherBatchSAM(SAM):
    r"""
    SAM with different batches in its two gradients (SAM-db, an ablation of Xie, Pethick and Cevher 2024):

        a = g(w_t; W_{t+1})
        ε = ρ a / (‖a‖₂ + 1e-12)             or another perturbation made from a
        descent gradient = g(w_t + ε; W_t)

    The other window is the next one: that of the update before would have to be kept, data and all, in checkpoints. If
    there is no next window, the last update uses its own. As in SAMPa, the logged loss is that of W_{t+1}.
    """

    description = Description(
        name="SAM-db",
        full_name="SAM with different batches in its two gradients",
        story="SAM-db is sharpness-aware minimization (SAM) whose perturbation is made from the gradient of the next "
        "batch instead of the one that the optimizer steps with; it is an ablation.",
        citations=(SAM_BIBTEX,),
        gradients="2",
        sequential="2",
        memory="1",
        source="the name and a caption in Xie, Pethick and Cevher 2024; that the other batch is the next one is our "
        "reading",
    )
    conflicts = (
        *SAM.conflicts,
        Conflict(
            option="ascent_scope='micro_batch'",
            found=lambda s: s.config.ascent_scope == "micro_batch",
            why="since two windows may differ in their number of micro-batches",
            instead="use ascent_scope='rank' or 'global'",
        ),
        GENERATES_INPUTS,
        NEEDS_ASCENT_GRADIENT,
    )
    needs_upcoming_window = True

    def ascent_gradient(
        self, engine: GradientEngine, update: Update, synchronize: bool
    ) -> tuple[Tensor, dict[Tensor, Tensor]]:
        return self.ascend(engine, update.upcoming or update.window, synchronize=synchronize)
