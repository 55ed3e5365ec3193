"""When a run is evaluated in training, and on what besides the evaluation split."""

from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback


class SparseEvaluation(TrainerCallback):
    """Of the evaluations after an epoch, leaves those after each `every`-th epoch and after the last one."""

    def __init__(self, every: int):
        self.every = every

    def on_epoch_end(self, args, state, control, **kwargs):
        if round(state.epoch) % self.every and state.global_step < state.max_steps:
            control.should_evaluate = False


class EvaluationBeside(TrainerCallback):
    """Evaluates on other examples too, whenever `trainer` evaluates in training: as `eval<suffix>_loss` and so on."""

    def __init__(self, trainer: Trainer, splits: dict[str, Dataset]):
        self.trainer, self.splits, self._at_work = trainer, splits, False

    def on_evaluate(self, args, state, control, **kwargs):
        if self._at_work or not self.trainer.is_in_train:
            return
        self._at_work = True
        for suffix, split in self.splits.items():
            self.trainer.evaluate(split, metric_key_prefix=f"eval{suffix}")
        self._at_work = False
