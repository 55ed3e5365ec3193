"""The checkpoints of a [`SAMTrainerMixin`]: in goes a folder, out come the options and the method's state in it."""

import logging
from typing import Any

from torch import nn

from .contents import naming_files
from .renamed_weights import load_renamed_weights
from .state import SAM_STATE_NAME, read_options, read_state, write_state


logger = logging.getLogger(__name__)


class CheckpointMixin:
    """
    The part of [`SAMTrainerMixin`] that saves and loads. A checkpoint is one of the stock Trainer, with
    `sam_config.json` and, if the method or the perturbation has a state, `sam_state.safetensors`.
    """

    def _save(self, output_dir: str | None = None, *args: Any, **kwargs: Any) -> None:
        super()._save(output_dir, *args, **kwargs)
        if self.args.should_save:
            self.sam_config.save_pretrained(self.args.output_dir if output_dir is None else output_dir)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        names = {weight: name for name, weight in self.model.named_parameters()}
        state = self.sam_method.state_dict(names)
        if self.args.should_save:
            write_state(output_dir, state)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if self._sharded_by_host or not load_renamed_weights(model or self.model, resume_from_checkpoint):
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_best_model(self) -> None:
        if self._sharded_by_host or not load_renamed_weights(self.model, self.state.best_model_checkpoint):
            super()._load_best_model()

    @property
    def _sharded_by_host(self) -> bool:
        return self.is_fsdp_enabled or self.is_deepspeed_enabled

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        self._warn_of_other_options(checkpoint)
        method = self.sam_method
        if not method.keeps_state:
            return
        weights = dict(self.model.named_parameters())
        stepped = getattr(self.optimizer, "optimizer", self.optimizer).state
        state = read_state(
            checkpoint,
            self.sam_config.method,
            weights,
            stepped=[name for name, weight in weights.items() if weight in stepped],
            may_overflow=self.accelerator.scaler is not None,
        )
        if state:
            with naming_files(checkpoint, SAM_STATE_NAME):
                method.load_state_dict(state, weights)

    def _warn_of_other_options(self, checkpoint: str) -> None:
        before = read_options(checkpoint)
        if not before:
            return
        now = self.sam_config.to_dict()
        for name in sorted(before.keys() | now.keys()):
            # A version that did not have an option did what its default does.
            then = before.get(name, getattr(type(self.sam_config), name, None))
            if name not in now or then != now[name]:
                logger.warning(
                    f"Resuming with SAMConfig.{name}={now.get(name)!r}, where {checkpoint} was trained with {then!r}."
                )
