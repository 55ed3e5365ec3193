"""Pushing to the Hub: what is pushed, that no token goes with it, and that a failed push does not end a training."""

import logging
import os
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo, ModelCard
from huggingface_hub.errors import HFValidationError
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import HubStrategy

from .card_results import card_history
from .model_card import TrainingRecord, card_tags, complete_card, describe_data
from .push_log import PushLog


logger = logging.getLogger(__name__)


class HubMixin:
    """
    The Hub's part of [`SAMTrainerMixin`]. All methods are those of `Trainer`, with these differences:

    - A push that fails, whatever the reason, does not raise. Training goes on and ends, everything stays in
      `output_dir`, and a message on rank 0 says what was not pushed, why, and the command that pushes it later.
      `push_to_hub` returns `None` where it failed.

      1. When the Trainer is constructed, the repository may not be created: no token, a wrong one (401), no right to
         the namespace (403). A warning says so at once, while stopping costs nothing. Every push tries again, with the
         token of that time.
      2. A save pushes in the background. All of these may fail there, and 404, a full quota (413), an error of the Hub
         (5xx), a broken connection. Each reason is told once; the next save tries again.
      3. `push_to_hub` may fail as a save does.
    - A checkpoint is pushed when all ranks have written their part of it; with `hub_always_push`, when the push before
      it has ended, so that no file changes while it is read.
    - `args.hub_token` is left out of `training_args.bin`.
    - The model card, `sam_config.json` and the training log (`trainer_state.json`) are part of every push.
    """

    def init_hf_repo(self, *args: Any, **kwargs: Any) -> None:
        """
        Creates the repository, on rank 0. A failure is reported, and tried again at the next push.

        Raises:
            `ValueError`: the repository's name, `hub_model_id` or the last part of `output_dir`, is not allowed.
        """
        if not self.is_world_process_zero():
            return
        self.push_in_progress = None
        try:
            super().init_hf_repo(*args, **kwargs)
        except HFValidationError as error:
            name = "hub_model_id" if self.args.hub_model_id is not None else "output_dir"
            raise ValueError(
                f"TrainingArguments.{name}={getattr(self.args, name)!r} with push_to_hub: {error} Set hub_model_id to "
                "'<user or organization>/<name>'."
            ) from error
        except Exception as error:  # whatever the Hub, the network or its client may raise
            self._push_log.cannot_create(error)
        else:
            self._push_log.repository = self.hub_model_id

    @property
    def _push_log(self) -> PushLog:
        if "_push_log_instance" not in self.__dict__:
            self._push_log_instance = PushLog(self.args)
        return self._push_log_instance

    def create_model_card(
        self,
        language: str | None = None,
        license: str | None = None,
        tags: str | list[str] | None = None,
        *,
        data_description: str | None = None,
        **kwargs: Any,
    ) -> None:
        """
        The host's model card with a section on sharpness-aware training, the Hub's names of metrics, and the tags
        `hf_sam` and the method's name beside `tags`. Other arguments as in `Trainer.create_model_card`.

        Args:
            data_description (`str`, *optional*): Markdown for the section "Training and evaluation data", which the
                host leaves open: what was done to the data. Written for method `"none"` too.
        """
        # A host may take neither (trl): only what was given is passed on.
        given = {
            name: value for name, value in {"language": language, "license": license}.items() if value is not None
        }
        if self.sam_method.is_stock or not self.is_world_process_zero():
            super().create_model_card(tags=tags, **given, **kwargs)
        else:
            self._create_sam_card(tags, **given, **kwargs)
        if data_description and self.is_world_process_zero():
            path = Path(self.args.output_dir, "README.md")
            content = describe_data(path.read_text(encoding="utf-8"), data_description)
            path.write_text(content, encoding="utf-8")
        self._is_saved = True

    def _create_sam_card(self, tags: str | list[str] | None, **kwargs: Any) -> None:
        tags = [tags] if isinstance(tags, str) else list(tags or [])
        tags += [tag for tag in card_tags(self.sam_config) if tag not in tags]
        best_step = self.state.best_global_step if self.args.load_best_model_at_end else None
        log_history = self.state.log_history
        self.state.log_history = card_history(log_history, best_step)
        try:
            super().create_model_card(tags=tags, **kwargs)
            record = self._training_record(kwargs.get("model_name"))
        finally:
            self.state.log_history = log_history
        path = os.path.join(self.args.output_dir, "README.md")
        card = ModelCard.load(path)
        # For an adapter, PEFT has written the tags anew.
        card.data.tags = list(dict.fromkeys([*tags, *(card.data.tags or [])]))
        complete_card(card, record)
        card.save(path)

    def _training_record(self, model_name: str | None) -> TrainingRecord:
        split = getattr(self.eval_dataset, "split", None)
        return TrainingRecord(
            config=self.sam_config,
            args=self.args,
            log_history=self.state.log_history,
            gradients_per_update=self.sam_method.gradients_per_update,
            pairs=0 if self._pairs is None else self._pairs.count,
            total_train_batch_size=self.get_total_train_batch_size(self.args),
            model_id=self.hub_model_id or self.args.hub_model_id or model_name or Path(self.args.output_dir).name,
            model=self.accelerator.unwrap_model(self.model),
            processing_class=self.processing_class,
            eval_split=None if split is None else str(split),
            base_folder=self._base_folder(),
        )

    def _base_folder(self) -> str | None:
        """Its last part alone: a card says nothing of the machine's disks."""
        config = getattr(self.accelerator.unwrap_model(self.model), "config", None)
        folder = getattr(config, "_name_or_path", "")
        return Path(folder).resolve().name if folder and os.path.isdir(folder) else None

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        **kwargs: Any,
    ) -> CommitInfo | Future | None:
        """
        Saves the model, writes its card and pushes `output_dir`. Arguments as in `Trainer.push_to_hub`; those of the
        card as in `create_model_card`.

        Returns:
            What `Trainer.push_to_hub` returns on rank 0; `None` on other ranks, and on rank 0 if the push failed.
            Saving is not part of the push: what goes wrong there raises.
        """
        self._push_log.token = token or self.args.hub_token
        self._is_saved = False
        if self.is_world_process_zero():
            self.state.save_to_json(os.path.join(self.args.output_dir, TRAINER_STATE_NAME))
        try:
            push = super().push_to_hub(commit_message, blocking, token, revision, **kwargs)
        except Exception as error:  # whatever the Hub, the network or its client may raise
            if not self._is_saved:
                raise
            self._push_log.failed("", self.args.output_dir, None if self.hub_model_id is None else error)
            push = None
        if isinstance(push, Future):
            self._push_log.watch(push, "", self.args.output_dir)
        elif push is not None:
            self._push_log.pushed("")
        self._push_log.report(repeat=True)
        return push

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        if self.args.hub_strategy == HubStrategy.END:
            return
        # Every rank saves its own random state, and rank 0 may get here first.
        self.accelerator.wait_for_everyone()
        if not self.is_world_process_zero():
            return
        checkpoint = None
        if self.args.hub_strategy in (HubStrategy.CHECKPOINT, HubStrategy.ALL_CHECKPOINTS):
            keeps_last = self.args.hub_strategy == HubStrategy.CHECKPOINT
            checkpoint = "last-checkpoint" if keeps_last else Path(checkpoint_folder).name
        if self.hub_model_id is None:
            self.init_hf_repo()
        if self.hub_model_id is None:
            self._push_log.failed("", self.args.output_dir)
            if checkpoint is not None:
                self._push_log.failed(checkpoint, checkpoint_folder)
            return
        if self.push_in_progress is not None and not self.push_in_progress.is_done():
            # What is being pushed now must not change. As the host does, either skip this push or make sure of it.
            if not self.args.hub_always_push:
                if checkpoint is not None:
                    self._push_log.skipped(checkpoint, checkpoint_folder)
                return
            self.push_in_progress.wait_until_done()
        self._hide_token()
        self.sam_config.save_pretrained(self.args.output_dir)
        self.state.save_to_json(os.path.join(self.args.output_dir, TRAINER_STATE_NAME))
        self._draft_model_card()
        before = [] if self.push_in_progress is None else list(self.push_in_progress.jobs)
        super()._push_from_checkpoint(checkpoint_folder)
        jobs = [job for job in self.push_in_progress.jobs if job not in before]
        for job, place in zip(jobs, [("", self.args.output_dir), (checkpoint, checkpoint_folder)], strict=False):
            self._push_log.watch(job, *place, outlook="Training goes on, and the next save tries again. ")

    def _draft_model_card(self) -> None:
        try:
            self.create_model_card()
        except Exception as error:  # of whatever is wrong with a card, training must not end
            logger.warning(f"There is no up-to-date model card in {self.args.output_dir}: {error}")

    def _finish_current_push(self) -> None:
        super()._finish_current_push()
        if self.is_in_train:
            self._push_log.report()

    # ---- tokens ----

    def _save(self, *args: Any, **kwargs: Any) -> None:
        self._hide_token()
        super()._save(*args, **kwargs)

    def _hide_token(self) -> None:
        """The host pickles its arguments into `training_args.bin`, the token included, and pushes that file."""
        token = self.args.hub_token
        if token is not None and not isinstance(token, SecretToken):
            self.args.hub_token = SecretToken(token)


class SecretToken(str):
    """A token that works as the string it is, and that is not written by `pickle`, nor shown by `repr`."""

    def __reduce_ex__(self, protocol: int) -> tuple:
        return type(None), ()

    def __copy__(self) -> "SecretToken":
        return self

    def __deepcopy__(self, memo: dict) -> "SecretToken":
        return self

    def __repr__(self) -> str:
        return "<HUB_TOKEN>"
