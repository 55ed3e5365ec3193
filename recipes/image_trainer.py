"""The Trainer for augmented images: it hands out keys that know their epoch, and takes up checkpoints of any model."""

from image_examples import AugmentedExamples, EpochSampler
from torch import nn
from torch.utils import data
from transformers import TrainerCallback

from hf_sam import SAMTrainer


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

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self._load_renamed_weights(resume_from_checkpoint)

    def _load_best_model(self) -> None:
        super()._load_best_model()
        self._load_renamed_weights(self.state.best_model_checkpoint)

    def _load_renamed_weights(self, checkpoint: str) -> None:
        # Checkpoints of many vision models (ViT in 5.23) hold other names than the model does. The
        # Trainer matches names as they are and goes on without the rest (huggingface/transformers issue 43701).
        if not (self.is_fsdp_enabled or self.is_deepspeed_enabled):
            saved = type(self.model).from_pretrained(checkpoint, dtype=self.model.dtype)
            self.model.load_state_dict(saved.state_dict())
