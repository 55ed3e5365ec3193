"""What to do with the gradients: in goes an update's window, out comes the gradient that the optimizer steps with."""

import math
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..components import Component, Conflict
from ..engine import GradientEngine, Window, WindowResult, single_rows
from ..parallel.exchange import largest, world_size
from ..perturbations import PERTURBATIONS, Ascent, Perturbation
from ..rng import Draws, preserved_rng
from ..selection import Selection, select
from ..setting import Setting
from ..weights import displace, preserved_weights


PERTURBATION_PREFIX = "perturbation/"


def _without_ascent_gradient(setting: Setting) -> str | None:
    name = setting.config.perturbation
    return None if PERTURBATIONS[name].needs_gradient else name


#: For methods that have nothing to do where no ascent gradient is needed.
NEEDS_ASCENT_GRADIENT = Conflict(
    option="perturbation={!r}",
    found=_without_ascent_gradient,
    why="which needs no ascent gradient",
    instead="use method='sam'",
)
#: Of methods whose passes are synchronised but for accumulation.
STATIC_GRAPH = Conflict(
    option="ddp_static_graph=True",
    found=lambda s: s.several_ranks and getattr(s.args, "ddp_static_graph", False) and s.accumulates,
    why="under which DDP expects every pass to be synchronised",
    instead="leave it False, or use no gradient accumulation",
    under="with a pass that is not synchronised",
)


@dataclass(frozen=True)
class Update:
    """
    One update as a method sees it.

    Args:
        window (`Window`): W_t, at least one micro-batch.
        rho (`float`, *optional*): radius ρ_t; `None` outside of the schedule, for a stock update.
        number, updates (`int`): t, counted from 0 over the whole run, and the number of updates of the run.
        upcoming (`Window`, *optional*): W_{t+1}, for a method that `needs_upcoming_window`, if there is one.
        draws ([`~hf_sam.rng.Draws`], *optional*): the random numbers of this update.
    """

    window: Window
    rho: float | None
    upcoming: Window | None = None
    number: int = 0
    updates: int = 1
    draws: Draws = field(default_factory=Draws)

    @property
    def progress(self) -> float:
        """From 0 at the first to 1 at the last update of the run."""
        return self.number / max(1, self.updates - 1)


class Method(Component):
    """
    A method is asked for the gradient of one window at a time. It owns its state, which starts empty.

    Args:
        config ([`SAMConfig`]): the options.
        pairs ([`~hf_sam.parallel.Pairs`], *optional*): for a method that `runs_in_pairs`, the place of this process
            among several; `None` on a single process and for other methods.

    Attributes:
        options: an instance of `options_class`, what the user set as `method_args`.
        perturbation ([`~hf_sam.perturbations.Perturbation`]): where to perturb.
    """

    #: The options of `SAMConfig` that all methods may share and that this one uses.
    shared_options: ClassVar[tuple[str, ...]] = ("rho", "same_dropout_mask")
    #: The host's own step is used, untouched.
    is_stock = False
    #: `window_gradient` needs the next window too, so windows are read one ahead.
    needs_upcoming_window = False
    #: The ascent gradient is for the perturbation alone: it may be that of a part of the window, or of another loss.
    ascent_may_differ = False
    #: Over several ranks, two neighbours read the same data and compute two different gradients.
    runs_in_pairs = False

    def __init__(self, config: Any, pairs: Any = None):
        self.config = config
        self.pairs = pairs
        self.options = config.method_options
        self.perturbation = PERTURBATIONS[config.perturbation](config.perturbation_options)
        self._selection: Selection | None = None

    @property
    @abstractmethod
    def gradients_per_update(self) -> float:
        """How many gradients of one window this process computes for an update that perturbs."""

    @property
    def rank_of_statistics(self) -> int:
        """A rank that computes the unperturbed pass; all others take over its running statistics after each update."""
        return 0

    @property
    def part_of_window(self) -> tuple[int, int]:
        """Which part of how many of a window's rows this process looks at, where others have the same window."""
        return 0, 1

    def update_gradient(self, engine: GradientEngine, update: Update) -> WindowResult:
        """`window_gradient`, or that of the stock Trainer where the schedule does not perturb."""
        if update.rho is None:
            return self.stock_gradient(engine, update.window)
        result = self.window_gradient(engine, update)
        self.perturbation.conclude(engine)
        return result

    @abstractmethod
    def window_gradient(self, engine: GradientEngine, update: Update) -> WindowResult:
        """Leave in `.grad` what the optimizer is to step with, and all weights with the bits they had before."""

    def stock_gradient(self, engine: GradientEngine, window: Window) -> WindowResult:
        """Leave g(w; W) in `.grad`, averaged over all ranks."""
        loss = engine.gradient(window)
        return WindowResult(loss=loss, perturbed_loss=None, ascent_grad_norm=None)

    def gradient_at_weights(self, engine: GradientEngine, window: Window) -> dict[Tensor, Tensor]:
        """g(w; W), weight -> gradient, the same on all ranks, in a pass that counts for nothing."""
        engine.gradient(window, track_statistics=False)
        return engine.take_gradients()

    def ascend(
        self, engine: GradientEngine, window: Window, synchronize: bool = True
    ) -> tuple[Tensor, dict[Tensor, Tensor]]:
        """
        The loss, and g(w; W) as weight -> gradient, taken out of `.grad`. It stays on its rank unless `synchronize`.
        Of a method whose `ascent_may_differ`, that of the part of the window and of the loss that the user chose.

        The pass draws the masks that the next one will draw (`same_dropout_mask`), and the random streams stand
        afterwards where they stood, so that an update moves them as one step of the host.
        """
        with preserved_rng(engine.device, fresh=not self.config.same_dropout_mask):
            loss = engine.gradient(window, synchronize=synchronize, ascent=True)
        return loss, engine.take_gradients()

    def choose(self, model: nn.Module) -> None:
        """
        Settle which weights of `model`, without wrappers, are perturbed.

        Raises:
            `ValueError`: none would be; the message names the option and some weights.
        """
        named = f"SAMConfig.perturbation={self.config.perturbation!r}"
        self._selection = select(model, self.config.perturb_modules, self.perturbation, named)

    def chosen_weights(self, engine: GradientEngine) -> dict[Tensor, str]:
        """The weights that are perturbed, in the order of the engine, with their names."""
        if self._selection is None:
            self.choose(engine.model)
        return self._selection.of(engine.weights)

    def advance(
        self, engine: GradientEngine, ascent: dict[Tensor, Tensor], update: Update, local: bool = False
    ) -> Ascent:
        """
        The perturbation takes `ascent` into its state. `perturbed` does this itself; it is for a rank that does not
        perturb while others do. Arguments as there.
        """
        made_from = self._ascent(engine, ascent, update, local=local)
        self.perturbation.advance(made_from)
        return made_from

    @contextmanager
    def perturbed(
        self,
        engine: GradientEngine,
        ascent: dict[Tensor, Tensor],
        update: Update,
        loss_scale: Tensor | None = None,
        keep: bool = False,
        local: bool = False,
    ) -> Iterator[Tensor]:
        """
        Inside the block the chosen weights in `ascent` are at w + ε; afterwards they have their old bits. Yields the
        norm of their ascent gradient.

        Args:
            ascent (`dict[Tensor, Tensor]`): weight -> gradient. Its memory is used for ε and it is left empty, unless
                `keep`. Ignored by a perturbation that needs no gradient, which moves all chosen weights.
            update ([`Update`]): whose radius is used.
            loss_scale (`Tensor`, *optional*): factor that `ascent` carries under fp16.
            local (`bool`, *optional*, defaults to `False`): the gradients differ from rank to rank.
        """
        made_from = self._ascent(engine, ascent, update, loss_scale, not keep, local)
        if not keep:
            ascent.clear()
        self.perturbation.advance(made_from)
        weights = made_from.weights
        with preserved_weights(weights):
            displacement, norm = self.perturbation(made_from)
            del made_from
            displace(weights, displacement)
            del displacement
            yield norm

    def _ascent(
        self,
        engine: GradientEngine,
        ascent: dict[Tensor, Tensor],
        update: Update,
        loss_scale: Tensor | None = None,
        overwrite: bool = False,
        local: bool = False,
    ) -> Ascent:
        names = self.chosen_weights(engine)
        needs_gradient = self.perturbation.needs_gradient
        weights = [weight for weight in names if not needs_gradient or weight in ascent]
        return Ascent(
            weights=weights,
            gradients=[ascent[weight] for weight in weights] if needs_gradient else [],
            rho=update.rho,
            loss_scale=loss_scale,
            overwrite=overwrite,
            optimizer=engine.optimizer,
            names=names,
            update=update.number,
            updates=update.updates,
            local=local,
            draws=update.draws,
            revocable=engine.scaler is not None,
            row_gradients=partial(self._row_gradients, engine, update.window),
        )

    def _row_gradients(self, engine: GradientEngine, window: Window, count: int) -> Iterator[dict[Tensor, Tensor]]:
        part, parts = self.part_of_window
        share = math.ceil(count / world_size())
        rows = list(islice(single_rows(window), part, part + share * parts, parts))
        with preserved_rng(engine.device):
            for row in rows:
                with torch.enable_grad():
                    engine.gradient([row], synchronize=False, track_statistics=False)
                yield engine.take_gradients()
        with torch.enable_grad():
            engine.idle(rows or window, largest(len(rows), engine.device) - len(rows))

    @property
    def state_of_rank(self) -> bool:
        """Whether ranks have states that differ, so that a checkpoint needs that of each."""
        return self.perturbation.state_of_rank and self.config.ascent_scope == "rank" and self.pairs is None

    def reset(self) -> None:
        """Forget all state: a new run of training begins."""
        self.perturbation.reset()

    @property
    def keeps_state(self) -> bool:
        """Whether `state_dict` may return something."""
        own, of_perturbation = type(self).state_dict, type(self.perturbation).state_dict
        return own is not Method.state_dict or of_perturbation is not Perturbation.state_dict

    def state_dict(self, names: dict[Tensor, str]) -> dict[str, Tensor]:
        """What a resumed run needs besides the weights and the optimizer's state. `names`: weight -> name."""
        state = self.perturbation.state_dict(names)
        return {f"{PERTURBATION_PREFIX}{name}": value for name, value in state.items()}

    def load_state_dict(self, state: dict[str, Tensor], weights: dict[str, Tensor]) -> None:
        """Take up what `state_dict` returned. `weights`: name -> weight."""
        prefix = len(PERTURBATION_PREFIX)
        own = {name[prefix:]: value for name, value in state.items() if name.startswith(PERTURBATION_PREFIX)}
        self.perturbation.load_state_dict(own, weights)
