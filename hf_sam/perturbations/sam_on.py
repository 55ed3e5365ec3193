"""SAM-ON: only the normalisation layers are perturbed."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from ..components import Description
from ..options import option
from ..selection import normalization_weights
from .asam import ASAM_BIBTEX, ETA_HELP, SCALED_HELP, stretched
from .base import Ascent, Perturbation


SAM_ON_BIBTEX = """@inproceedings{mueller2023normalization,
    title     = {Normalization Layers Are All That Sharpness-Aware Minimization Needs},
    author    = {M{\\"u}ller, Maximilian and Vlaar, Tiffany and Rolnick, David and Hein, Matthias},
    booktitle = {Advances in Neural Information Processing Systems},
    year      = {2023},
    url       = {https://arxiv.org/abs/2306.04226}
}"""


@dataclass(frozen=True)
class SAMOnOptions:
    form: Literal["sam", "asam"] = option(
        "sam", "'sam': along the gradient; 'asam': in proportion to the weights' sizes"
    )
    no_norm: bool = option(False, "the complement: everything but the normalisation layers is perturbed")
    eta: float = option(0.01, f"of the form 'asam': {ETA_HELP}", lower=0.0)
    scaled: list[str] = option(["*weight*"], f"of the form 'asam': {SCALED_HELP}")


class SAMOn(Perturbation):
    """
    `ε = ρ a / (‖a‖₂ + 1e-12)` on the weights of the normalisation layers and 0 elsewhere, with the norm over those
    weights alone; or the same with ASAM's formula (Müller et al. 2023, https://arxiv.org/abs/2306.04226).

    Normalisation layers are found by the names of their classes and of what those derive from ("...Norm",
    "...Norm2d", "...NormGated"), which all of LayerNorm, BatchNorm2d, T5LayerNorm and LlamaRMSNorm have in common; the
    authors' script looks for "norm" and "bn" in the weights' names, which finds none in BERT or GPT-2.
    """

    description = Description(
        name="SAM-ON",
        full_name="normalisation layers only",
        story="Only the weights of the normalisation layers are perturbed (SAM-ON); all weights are trained.",
        citations=(SAM_ON_BIBTEX,),
        gradients="1",
        source="Müller et al. 2023 and their code; layers are found by class, the authors find them by name",
    )
    options_class = SAMOnOptions

    @classmethod
    def citations(cls, config) -> tuple[str, ...]:
        adaptive = config.perturbation_options.form == "asam"
        return (*super().citations(config), *([ASAM_BIBTEX] if adaptive else []))

    @property
    def nothing_chosen(self) -> str:
        if self.options.no_norm:
            return "there is no trainable weight outside of normalisation layers (no_norm is True)"
        return (
            "there is no trainable weight of a normalisation layer (adapters such as LoRA freeze them: train them "
            "too, or use another perturbation)"
        )

    def choose(self, model: nn.Module) -> Collection[Tensor]:
        normalization = set(normalization_weights(model))
        if self.options.no_norm:
            return {weight for weight in model.parameters() if weight not in normalization}
        return normalization

    def __call__(self, ascent: Ascent) -> tuple[list[Tensor], Tensor]:
        adaptive = self.options.form == "asam"
        return stretched(
            ascent, self.options.scaled if adaptive else [], lambda weight: weight.abs().add_(self.options.eta)
        )
