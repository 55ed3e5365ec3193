"""The checkpoints of a [`SAMTrainerMixin`]: in goes a folder, out come the options and the method's state in it."""

import logging
from typing import Any

from torch import Tensor

from .contents import FileError, naming_files
from .method_state import SAM_STATE_NAME, has_count, load_state, save_state
from .renamed_weights import load_renamed_weights
from .state import explain_absence, read_options, state_problem


logger = logging.getLogger(__name__)


class CheckpointMixin:
    """
    The part of [`SAMTrainerMixin`] that saves and loads. A checkpoint is one of the stock Trainer, with
    `sam_config.json` and, if the method or the perturbation has a state, `sam_state.safetensors`, or a file of each
    rank where ranks differ (`sam_state_0.safetensors`, ...).
    """

    def _save(self, output_dir: str | None = None, *args: Any, **kwargs: Any) -> None:
        super()._save(output_dir, *args, **kwargs)
        if self.args.should_save:
            self.sam_config.save_pretrained(self.args.output_dir if output_dir is None else output_dir)

    def _save_optimizer_and_scheduler(self, output_dir: str, *args: Any, **kwargs: Any) -> None:
        super()._save_optimizer_and_scheduler(output_dir, *args, **kwargs)
        if self.args.should_save or self._state_of_rank:
            names = {weight: name for name, weight in self._named_weights().items()}
            state = self.sam_method.state_dict(names)
            save_state(state, output_dir, self.args.process_index, self.args.world_size, self._state_of_rank)

    # What came is passed on as it came, since hosts have signatures of their own.

    def _load_from_checkpoint(self, checkpoint: str, *args: Any, **kwargs: Any) -> None:
        if self._sharded_by_host or not load_renamed_weights(self.model, checkpoint):
            super()._load_from_checkpoint(checkpoint, *args, **kwargs)

    def _load_best_model(self, *args: Any, **kwargs: Any) -> None:
        if self._sharded_by_host or not load_renamed_weights(self.model, self.state.best_model_checkpoint):
            super()._load_best_model(*args, **kwargs)

    def _named_weights(self) -> dict[str, Tensor]:
        """Name -> weight; those that the optimizer has and the model does not go by their place in its groups."""
        named = dict(self.model.named_parameters())
        known = set(named.values())
        for group, entry in enumerate(self.optimizer.param_groups):
            places = enumerate(entry["params"])
            named |= {f"param_groups.{group}.{i}": weight for i, weight in places if weight not in known}
        return named

    @property
    def _state_of_rank(self) -> bool:
        return self.args.world_size > 1 and self.sam_method.state_of_rank

    @property
    def _sharded_by_host(self) -> bool:
        return self.is_fsdp_enabled or self.is_deepspeed_enabled

    def _load_optimizer_and_scheduler(self, checkpoint: str | None, *args: Any, **kwargs: Any) -> None:
        super()._load_optimizer_and_scheduler(checkpoint, *args, **kwargs)
        if checkpoint is None:
            return
        self._warn_of_other_options(checkpoint)
        method = self.sam_method
        if not method.keeps_state:
            return
        state = load_state(checkpoint, self.args.process_index, self.args.world_size, self._state_of_rank)
        if not state:
            explain_absence(checkpoint, self.sam_config.method)
            return
        weights = self._named_weights()
        stepped = () if has_count(checkpoint) else getattr(self.optimizer, "optimizer", self.optimizer).state
        problem = state_problem(
            state,
            weights,
            stepped=[name for name, weight in weights.items() if weight in stepped],
            may_overflow=self.accelerator.scaler is not None,
        )
        if problem:
            raise FileError(
                f"{checkpoint}: {SAM_STATE_NAME} does not fit: {problem}. The run would silently go on otherwise than "
                "before: resume from another checkpoint."
            )
        with naming_files(checkpoint, "sam_state*.safetensors"):
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
