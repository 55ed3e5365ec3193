"""The options of a trainer after its construction: changed between updates, searched over, recorded by trackers."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from typing import Any

from ..config import SAMConfig


logger = logging.getLogger(__name__)

# What a method is made of; other options may change from one update to the next.
FIXED_WHILE_TRAINING = ("method", "method_args", "perturbation", "perturbation_args", "perturb_modules", "lookahead")


class OptionsMixin:
    """
    The part of [`SAMTrainerMixin`] that holds `sam_config`. It may be set at any time, on all ranks; while training it
    holds from the next update on, and `sam/rho` is logged from then on.
    """

    _sam_config: SAMConfig
    _in_training_loop = False
    _has_changed = False

    @property
    def sam_config(self) -> SAMConfig:
        return self._sam_config

    @sam_config.setter
    def sam_config(self, config: SAMConfig) -> None:
        """
        Raises:
            `ValueError`: no [`SAMConfig`], options that exclude each other, or while training another method,
                perturbation or lookahead.
        """
        if not isinstance(config, SAMConfig):
            raise ValueError(f"sam_config={config!r}: must be a SAMConfig.")
        changed = {
            option.name: getattr(config, option.name)
            for option in fields(config)
            if getattr(config, option.name) != getattr(self._sam_config, option.name)
        }
        fixed = [name for name in FIXED_WHILE_TRAINING if name in changed]
        if self._in_training_loop and fixed:
            raise ValueError(
                f"SAMConfig.{fixed[0]}={changed[fixed[0]]!r} while training with "
                f"{getattr(self._sam_config, fixed[0])!r}: set it before train()."
            )
        for name, value in changed.items():
            logger.info(
                f"SAMConfig.{name} changes from {getattr(self._sam_config, name)!r} to {value!r} at update "
                f"{self.state.global_step}."
            )
        if self._in_training_loop:
            self._check_options(config)
            config.schedule.check(self.state.max_steps)
            self.sam_method.config = config
            self._has_changed = True
        elif self.model is not None:
            # After a search there is none until the next run makes it, and then the method is chosen.
            self._choose_method(config)
        self._sam_config = config

    def _hp_search_setup(self, trial: Any) -> None:
        """Names in `hp_space` that are options of [`SAMConfig`] are set there, the others are the host's."""
        if self.hp_search_backend is None or trial is None:
            super()._hp_search_setup(trial)
            return
        found: dict[str, Any] = {}
        host_space = self.hp_space
        # Ray and Weights & Biases hand over the values themselves, Optuna a trial that the space asks for them.
        is_mapping = isinstance(trial, dict)
        self.hp_space = _without_options_of_sam(host_space, found)
        try:
            super()._hp_search_setup({k: v for k, v in trial.items() if k not in _names()} if is_mapping else trial)
        finally:
            self.hp_space = host_space
        if is_mapping:
            self._trial = trial
            found |= {name: trial[name] for name in _names() if name in trial}
        if found:
            self.sam_config = replace(self.sam_config, **found)

    @contextmanager
    def _recorded_with_options(self) -> Iterator[None]:
        """Inside the block, callbacks that ask the arguments for all of them at the begin of training get ours too."""
        handler, config = self.callback_handler, self
        begin = handler.on_train_begin

        def on_train_begin(args: Any, *rest: Any, **kwargs: Any) -> Any:
            host_class = type(args)

            class WithOptions(host_class):
                def to_dict(self) -> dict[str, Any]:
                    return super().to_dict() | {f"sam_{k}": v for k, v in asdict(config.sam_config).items()}

            args.__class__ = WithOptions
            try:
                return begin(args, *rest, **kwargs)
            finally:
                args.__class__ = host_class

        handler.on_train_begin = on_train_begin
        try:
            yield
        finally:
            del handler.on_train_begin


def _names() -> list[str]:
    return [option.name for option in fields(SAMConfig)]


def _without_options_of_sam(space: Callable[[Any], dict], found: dict[str, Any]) -> Callable[[Any], dict]:
    def host_space(trial: Any) -> dict[str, Any]:
        values = space(trial)
        found.update((name, value) for name, value in values.items() if name in _names())
        return {name: value for name, value in values.items() if name not in found}

    return host_space
