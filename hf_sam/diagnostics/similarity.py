"""How good SAMPa's lookahead gradient is: in go a window and its method, out come two scalars for the log."""

import torch
from torch import Tensor

from ..engine import GradientEngine, Window
from ..methods import Method
from ..methods.sampa import SAMPa
from ..rng import preserved_rng
from ..weights import global_norm
from .window_callback import WindowCallback


class SAMPaSimilarity(WindowCallback):
    r"""
    How well the lookahead gradient h_t stands in for the gradient at the weights, which SAM would perturb with. Logs
    `sampa/cosine` = cos(∇f(w_t), h_t) and `sampa/distance` = ‖∇f(w_t) − h_t‖₂, both on the window W_t: the quantity by
    which the paper justifies the method (Xie et al. 2024, section 4). Costs one extra gradient when it fires.

    Args:
        every_n_updates (`int`, *optional*, defaults to 100): how often it fires; from the second update on.

    Raises:
        `ValueError`: `every_n_updates` is below 1, or the trainer's method is not SAMPa.

    Example:

    ```python
    trainer = SAMTrainer(..., sam_config=SAMConfig(method="sampa"), callbacks=[SAMPaSimilarity(50)])
    ```
    """

    def __init__(self, every_n_updates: int = 100):
        if type(every_n_updates) is not int or every_n_updates < 1:
            raise ValueError(f"SAMPaSimilarity.every_n_updates={every_n_updates!r}: must be a whole number from 1.")
        self.every_n_updates = every_n_updates

    def check(self, method: Method) -> None:
        if not isinstance(method, SAMPa):
            raise ValueError(
                f"SAMPaSimilarity cannot be combined with SAMConfig.method={method.config.method!r}: "
                "use method='sampa'."
            )

    def on_window(self, engine: GradientEngine, window: Window, method: Method, global_step: int) -> dict[str, Tensor]:
        lookahead = method.lookahead_gradient
        shared = [weight for weight in engine.weights if weight in lookahead]
        if global_step % self.every_n_updates or not shared:
            return {}
        with preserved_rng(engine.device):
            gradient = method.gradient_at_weights(engine, window)
        shared = [weight for weight in shared if weight in gradient]
        ours, theirs = [gradient[weight] for weight in shared], [lookahead[weight] for weight in shared]
        dot = torch.stack([(a * b).sum(dtype=_wide(a)) for a, b in zip(ours, theirs, strict=True)]).sum()
        cosine = dot / (global_norm(ours) * global_norm(theirs))
        torch._foreach_sub_(ours, theirs)
        return {"sampa/cosine": cosine, "sampa/distance": global_norm(ours)}


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)
