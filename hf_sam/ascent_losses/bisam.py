"""BiSAM: ascend a lower bound of the misclassification error, which is what the maximum is meant to be of."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import softplus

from ..components import Conflict, Description
from ..options import option
from ..setting import Setting
from .base import AscentLoss


BISAM_BIBTEX = """@article{xie2024bisam,
    title   = {Improving {SAM} Requires Rethinking its Optimization Formulation},
    author  = {Xie, Wanyun and Latorre, Fabian and Antonakopoulos, Kimon and Pethick, Thomas and Cevher, Volkan},
    journal = {arXiv preprint arXiv:2407.12993},
    year    = {2024}
}"""
# Their labels are positions in a text, boxes, or sound, not one class for each row of logits.
LOSSES_WITHOUT_CLASSES = (
    "ForQuestionAnswering",
    "ForSegmentation",
    "ForObjectDetection",
    "ForCTC",
    "ForRNNT",
    "ForTDT",
)


def _without_classes(setting: Setting) -> str | None:
    model = getattr(setting.model, "get_base_model", lambda: setting.model)()
    config = getattr(model, "config", None)
    kind = getattr(config, "problem_type", None)
    if kind in ("regression", "multi_label_classification"):
        return f"problem_type={kind!r}"
    loss_type = getattr(model, "loss_type", None) or ""
    if loss_type.endswith("ForSequenceClassification") and getattr(config, "num_labels", None) == 1:
        return "num_labels=1, which is regression"
    return loss_type if loss_type.endswith(LOSSES_WITHOUT_CLASSES) else None


@dataclass(frozen=True)
class BiSAMOptions:
    form: Literal["tanh", "log"] = option("tanh", "φ, the bound of the step function: 'tanh' or 'log'")
    mu: float | None = option(
        None,
        "μ, how near the smooth maximum over classes is to the maximum; None is 10 for 'tanh' and 1 for 'log', "
        "the authors' defaults",
        lower=1e-6,
    )
    alpha: float = option(0.1, "α, slope of 'tanh' at 0. The authors' default", lower=1e-6)


class BiSAM(AscentLoss):
    r"""
    The ascent loss of BiSAM (Xie et al. 2024, https://arxiv.org/abs/2407.12993). For an example of class y, logits z:

        Q = (1/μ) log Σ_j exp(μ φ(z_j - z_y))
        φ(x) = tanh(α x)                         form "tanh"
        φ(x) = 1 - log(1 + (e - 1) exp(-x))      form "log"

    averaged over examples, or over tokens with a label in a language model. It needs one class for each of them.

    | symbol | option |
    |---|---|
    | φ, μ, α | `form`, `mu`, `alpha` |
    """

    description = Description(
        name="BiSAM",
        full_name="a lower bound of the misclassification error (BiSAM)",
        story="The ascent gradient is not that of the training loss but of a smooth lower bound of the number of "
        "misclassified examples (BiSAM).",
        citations=(BISAM_BIBTEX,),
        source="the authors' code, LIONS-EPFL/BiSAM@be996e4, loss_fnc.py and args.py; one token as one example is our "
        "reading",
    )
    options_class = BiSAMOptions
    conflicts = (
        Conflict(
            option="{}",
            found=_without_classes,
            why="since it needs one class for each example or token",
            instead="leave ascent_loss at 'training'",
        ),
    )

    def __init__(self, options: Any = None):
        super().__init__(options)
        self.mu = self.options.mu or (10.0 if self.options.form == "tanh" else 1.0)

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        margins = logits - logits.gather(-1, labels.unsqueeze(-1))
        if self.options.form == "tanh":
            bound = torch.tanh(self.options.alpha * margins)
        else:
            # log(1 + c e^-x) without overflow at large negative x.
            bound = 1.0 - softplus(math.log(math.e - 1.0) - margins)
        return torch.logsumexp(self.mu * bound, dim=-1) / self.mu
