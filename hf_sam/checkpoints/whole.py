"""The checkpoints' part of the Trainer's hooks: one is whole or is passed over, and every error names a file."""

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import safetensors
import torch
from accelerate.utils import gather_object
from torch import nn
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, rotate_checkpoints

from . import manifest
from .contents import absent, naming_files
from .resume import choose, list_checkpoints


logger = logging.getLogger(__name__)

# What writing a file may raise. torch.save turns a full disk into a RuntimeError about its archive.
WRITE_ERRORS = (OSError, RuntimeError, safetensors.SafetensorError)


class WholeCheckpointMixin:
    """
    The checkpoints' part of [`SAMTrainerMixin`]. All methods are those of `Trainer`, with these differences:

    - A checkpoint is marked as incomplete until all ranks have written their files and these are on the disk. Older
      checkpoints are deleted, and it is pushed, only after that.
    - `train(resume_from_checkpoint=True)` goes on from the last whole checkpoint, and a warning says which ones are
      skipped and why. `"auto"` does the same, and starts from the beginning if there is none.
    - Errors say which checkpoint could not be written, or which file could not be read.
    """

    # Of the checkpoint that is being written: what `args.save_total_limit` is otherwise.
    _withheld_limit: int | None = None

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """
        Raises:
            `ValueError`: there is no whole checkpoint to resume from; the message names those there are.
        """
        if resume_from_checkpoint:
            checkpoints = self._known_to_any_rank(list_checkpoints(self.args.output_dir))
            resume_from_checkpoint = choose(
                resume_from_checkpoint, self.args.output_dir, self._why_not_whole, checkpoints
            )
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def _known_to_any_rank(self, checkpoints: list[str]) -> list[str]:
        """In the same order on all ranks: they may have disks of their own."""
        known = dict.fromkeys(gather_object(checkpoints))
        return sorted(known, key=lambda path: int(path.rpartition("-")[2]), reverse=True)

    def _why_not_whole(self, checkpoint: str) -> str | None:
        """The same answer on all ranks; one process per disk looks."""
        reason = manifest.why_not_whole(checkpoint) if self.accelerator.is_local_main_process else None
        return next((reason for reason in gather_object([reason]) if reason is not None), None)

    # ---- writing ----

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """
        Raises:
            `OSError`: a file could not be written. Earlier checkpoints are as they were.
        """
        run_dir = self._get_output_dir(trial=trial)
        folder = os.path.join(run_dir, f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}")
        with _naming_the_checkpoint(folder):
            if self.args.should_save:
                manifest.begin(folder)
            self._withheld_limit = self.args.save_total_limit
            with self._save_total_limit(None):
                super()._save_checkpoint(model, trial)
            # Every rank has written its own files, but the mark is set by one that has to know.
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                manifest.finish(folder, self.args.world_size, to_disk=self._limits_checkpoints)
        if self.args.push_to_hub:
            super()._push_from_checkpoint(folder)
        if self.args.should_save:
            self._rotate(run_dir, folder)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """The host comes here before all ranks have written their files. It is pushed later, when it is whole."""

    def _save(self, *args: Any, **kwargs: Any) -> None:
        # The arguments are saved too, and with the limit that the user has set.
        with self._save_total_limit(self.args.save_total_limit or self._withheld_limit):
            super()._save(*args, **kwargs)

    @contextmanager
    def _save_total_limit(self, limit: int | None) -> Iterator[None]:
        before, self.args.save_total_limit = self.args.save_total_limit, limit
        try:
            yield
        finally:
            self.args.save_total_limit = before

    @property
    def _limits_checkpoints(self) -> bool:
        return (self.args.save_total_limit or 0) > 0

    def _rotate(self, run_dir: str, newest: str) -> None:
        """As the host does at the end of `_save_checkpoint`; what was cut off goes first, and counts for nothing."""
        if not self._limits_checkpoints:
            return
        for checkpoint in list_checkpoints(run_dir):
            if checkpoint != newest and manifest.why_not_whole(checkpoint, hashes=False):
                shutil.rmtree(checkpoint, ignore_errors=True)
        rotate_checkpoints(
            output_dir=run_dir,
            save_total_limit=self.args.save_total_limit,
            best_model_checkpoint=self.state.best_model_checkpoint,
            use_mtime=True,
        )

    # ---- reading ----

    def _load_from_checkpoint(self, resume_from_checkpoint: str, *args: Any, **kwargs: Any) -> None:
        with naming_files(resume_from_checkpoint, "model*", "pytorch_model*", "adapter*", "config.json"):
            super()._load_from_checkpoint(resume_from_checkpoint, *args, **kwargs)

    def _load_best_model(self) -> None:
        with naming_files(self.state.best_model_checkpoint, "model*", "pytorch_model*", "adapter*"):
            super()._load_best_model()

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            self._warn_of_absent_files(checkpoint)
        with naming_files(checkpoint, "optimizer.pt", "scheduler.pt", "optimizer*.bin"):
            super()._load_optimizer_and_scheduler(checkpoint)

    def _load_scaler(self, checkpoint: str | None) -> None:
        with naming_files(checkpoint, "scaler.pt"):
            super()._load_scaler(checkpoint)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        with naming_files(checkpoint, f"rng_state_{self.args.process_index}.pth", "rng_state.pth"):
            super()._load_rng_state(checkpoint)

    def _warn_of_absent_files(self, checkpoint: str) -> None:
        missing = absent(checkpoint, self.args.world_size, self.args.process_index)
        if missing:
            logger.warning(
                f"{checkpoint} has no {', '.join(missing)}: what these hold starts anew, so the run goes on otherwise "
                "than it would have without the interruption."
            )


@contextmanager
def _naming_the_checkpoint(folder: str) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except WRITE_ERRORS as error:
        free = shutil.disk_usage(os.path.dirname(folder) or ".").free / 2**20
        raise OSError(
            f"{folder} could not be written ({error}); {free:.1f} MiB are free on that disk. Earlier checkpoints are "
            "as they were, and resume_from_checkpoint='auto' goes on from the last whole one."
        ) from error
