"""The Trainer for augmented images: it hands out keys that know their epoch, and evaluates one model on all ranks."""

from torch.utils import data
from transformers import TrainerCallback

from hf_sam import SAMTrainer
from hf_sam.engine import normalization_modules
from hf_sam.parallel.exchange import broadcast_statistics

from .examples import AugmentedExamples, EpochSampler


class _EpochOfLoop(TrainerCallback):
    """Tells the sampler the epoch of the training loop: accelerate does not reach it in a resumed epoch on shards."""

    def __init__(self, sampler: EpochSampler):
        self.sampler = sampler

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.sampler.set_epoch(int(state.epoch))


class ImageTrainer(SAMTrainer):
    """
    [`~hf_sam.SAMTrainer`] on [`AugmentedExamples`].

    Raises:
        `ValueError`: `train_sampling_strategy` is neither `"random"` nor `"sequential"`.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        strategy = self.args.train_sampling_strategy
        if strategy not in ("random", "sequential"):
            raise ValueError(f"train_sampling_strategy={strategy!r}: images need 'random' or 'sequential'.")

    def _get_train_sampler(self, train_dataset: data.Dataset | None = None) -> data.Sampler | None:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        if not isinstance(dataset, AugmentedExamples):
            return super()._get_train_sampler(train_dataset)
        shuffle = self.args.train_sampling_strategy == "random"
        sampler = EpochSampler(len(dataset), dataset.seed, shuffle)
        self.pop_callback(_EpochOfLoop)
        self.add_callback(_EpochOfLoop(sampler))
        return sampler

    def evaluation_loop(self, *args, **kwargs):
        # DDP hands out the running statistics of rank 0 before every forward pass but not after the last one, and rank
        # 0's are saved. Without this, the ranks of an AdamW run would evaluate different models.
        statistics = normalization_modules(self.model)
        if statistics and self.args.world_size > 1:
            broadcast_statistics(statistics, source=0)
        return super().evaluation_loop(*args, **kwargs)
