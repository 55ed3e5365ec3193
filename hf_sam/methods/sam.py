"""SAM: the gradient of a window at the worst point, to first order, of a ball around the weights."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..components import Conflict, Description
from ..engine import GradientEngine, WindowResult
from .base import Method, Update


SAM_BIBTEX = """@inproceedings{foret2021sharpness,
    title     = {Sharpness-Aware Minimization for Efficiently Improving Generalization},
    author    = {Foret, Pierre and Kleiner, Ariel and Mobahi, Hossein and Neyshabur, Behnam},
    booktitle = {International Conference on Learning Representations},
    year      = {2021},
    url       = {https://arxiv.org/abs/2010.01412}
}"""
MSAM_BIBTEX = """@article{behdin2023msam,
    title   = {{mSAM}: Micro-Batch-Averaged Sharpness-Aware Minimization},
    author  = {Behdin, Kayhan and Song, Qingquan and Gupta, Aman and Keerthi, Sathiya and Acharya, Ayan and
               Ocejo, Borja and Dexter, Gregory and Khanna, Rajiv and Durfee, David and Mazumder, Rahul},
    journal = {arXiv preprint arXiv:2302.09693},
    year    = {2023}
}"""


class SAM(Method):
    r"""
    Sharpness-aware minimization (Foret et al. 2021, https://arxiv.org/abs/2010.01412, Algorithm 1). For each window W:

        a = g(w; W)                          ascent gradient
        ε = ρ a / (‖a‖₂ + 1e-12)             perturbation, or another one of `hf_sam.perturbations`
        descent gradient = g(w + ε; W)       what the optimizer steps with, from w

    | symbol | where it is set |
    |---|---|
    | ρ | `SAMConfig.rho`, and when it changes over a run, `SAMConfig.rho_schedule` |
    | over which ranks and micro-batches g is averaged in a | `SAMConfig.ascent_scope` |
    | ε | `SAMConfig.perturbation` |
    """

    description = Description(
        name="SAM",
        full_name="sharpness-aware minimization",
        story="Sharpness-aware minimization (SAM) looks for weights whose whole neighbourhood has a low loss. For "
        "each update it takes the gradient at the worst point, to first order, of a ball of radius rho around the "
        "weights, and the optimizer steps with that gradient from the weights themselves.",
        citations=(SAM_BIBTEX,),
        gradients="2",
        sequential="2",
        memory="1",
        source="Foret et al. 2021, Algorithm 1",
    )
    shared_options = ("rho", "ascent_scope", "same_dropout_mask")
    conflicts = (
        Conflict(
            option="gradient_as_bucket_view=True of DistributedDataParallelKwargs",
            found=lambda s: s.config.ascent_scope == "micro_batch" and s.ddp_option("gradient_as_bucket_view"),
            instead="leave it False, or use ascent_scope='rank'",
            under="with ascent_scope='micro_batch'",
        ),
        Conflict(
            option="ddp_static_graph=True",
            found=lambda s: (
                s.several_ranks
                and getattr(s.args, "ddp_static_graph", False)
                and (s.config.ascent_scope != "global" or s.accumulates)
            ),
            why="under which DDP expects every pass to be synchronised",
            instead="leave it False, or use ascent_scope='global' without accumulation",
            under="with a pass that is not synchronised",
        ),
    )

    @classmethod
    def citations(cls, config: Any) -> tuple[str, ...]:
        return (*super().citations(config), *([MSAM_BIBTEX] if config.ascent_scope == "micro_batch" else []))

    ascent_may_differ = True

    @property
    def gradients_per_update(self) -> float:
        return 1 + self.config.ascent_fraction if self.perturbation.needs_gradient else 1

    def window_gradient(self, engine: GradientEngine, update: Update) -> WindowResult:
        scope = self.config.ascent_scope
        if not self.perturbation.needs_gradient:
            with self.perturbed(engine, {}, update, local=scope != "global"):
                loss = engine.gradient(update.window)
            return WindowResult(loss=loss, perturbed_loss=None, ascent_grad_norm=None)
        if scope != "micro_batch":
            return self._ascend_and_descend(engine, update, share_ascent=scope == "global")

        results = []
        for position, micro_batch in enumerate(update.window, start=1):
            part = replace(update, window=[micro_batch])
            results.append(self._ascend_and_descend(engine, part, share_descent=position == len(update.window)))
        return WindowResult(
            loss=sum(result.loss for result in results),
            perturbed_loss=sum(result.perturbed_loss for result in results),
            ascent_grad_norm=torch.stack([result.ascent_grad_norm for result in results]).mean(),
        )

    def ascent_gradient(
        self, engine: GradientEngine, update: Update, synchronize: bool
    ) -> tuple[Tensor, dict[Tensor, Tensor]]:
        """The unperturbed loss, and a as weight -> gradient with its loss scale, averaged over ranks or not."""
        return self.ascend(engine, update.window, synchronize=synchronize)

    def _ascend_and_descend(
        self,
        engine: GradientEngine,
        update: Update,
        share_ascent: bool = False,
        share_descent: bool = True,
    ) -> WindowResult:
        accumulated = engine.take_gradients()
        loss, ascent = self.ascent_gradient(engine, update, share_ascent)
        with self.perturbed(engine, ascent, update, engine.loss_scale, local=not share_ascent) as norm:
            engine.put_gradients(accumulated)
            # The host counts this pass where the ascent was on a part of the window, or on another one.
            perturbed_loss = engine.gradient(
                update.window, synchronize=share_descent, track_statistics=False, counted=True
            )
        return WindowResult(loss=loss, perturbed_loss=perturbed_loss, ascent_grad_norm=norm)
