"""AdamW, SAM and SAMPa on handwritten digits, on a CPU, in a few minutes: `make demo-vit`.

Trains the same small Vision Transformer from scratch three times on the real 8 x 8 images that come with scikit-learn,
then prints one table. SAMPa runs on two processes, started as `torchrun` would, with the same total batch as the
others on one: both ranks of the pair see the same randomly shifted images.
"""

import numpy as np
from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as Pillow
from sklearn.datasets import load_digits
from transformers import (
    TrainingArguments,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessorPil,
)

from hf_sam import SAMConfig
from hf_sam_recipes.common.entry import run_script
from hf_sam_recipes.common.examples import corrupt_labels
from hf_sam_recipes.demos.comparison import Comparison
from hf_sam_recipes.images.examples import Augmentation, AugmentedExamples, ImageExamples
from hf_sam_recipes.images.metric import ImageMetrics
from hf_sam_recipes.images.trainer import ImageTrainer


RHO = 0.1
METHODS = {
    "adamw": (1, SAMConfig(method="none")),
    "sam": (1, SAMConfig(method="sam", rho=RHO)),
    "sampa-0.2": (2, SAMConfig(method="sampa", rho=RHO, sampa_lambda=0.2)),
}
TRAIN_SIZE, SHARPNESS_SIZE, BATCH_SIZE, LABEL_NOISE = 1000, 256, 32, 0.2


def load_data() -> tuple[Dataset, Dataset]:
    """1,000 digits to train on, some of them with a wrong label, and 797 to evaluate on."""
    digits = load_digits()
    images = [Pillow.fromarray(image) for image in (digits.images * 255 / 16).astype(np.uint8)]
    features = Features({"image": Image(), "label": ClassLabel(num_classes=10)})
    labels = digits.target.copy()
    labels[:TRAIN_SIZE] = corrupt_labels(labels[:TRAIN_SIZE], LABEL_NOISE, seed=0, num_classes=10)
    data = Dataset.from_dict({"image": images, "label": labels}, features)
    return data.select(range(TRAIN_SIZE)), data.select(range(TRAIN_SIZE, len(data)))


def build(sam_config: SAMConfig, args: TrainingArguments) -> tuple[ImageTrainer, ImageExamples]:
    """The trainer, and the images to measure sharpness on."""
    train_data, eval_data = load_data()
    processor = ViTImageProcessorPil(size={"height": 8, "width": 8})
    config = ViTConfig(
        image_size=8,
        patch_size=4,
        hidden_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=128,
        # The usual 0.02 is meant for wider models: here attention would take long to become uneven.
        initializer_range=0.06,
        num_labels=10,
    )
    trainer = ImageTrainer(
        model=ViTForImageClassification(config),
        args=args,
        # A mirrored digit is another sign, or none.
        train_dataset=AugmentedExamples(train_data, processor, Augmentation(padding=1, flip=False), args.seed),
        eval_dataset=ImageExamples(eval_data, processor),
        compute_metrics=ImageMetrics(10),
        sam_config=sam_config,
    )
    return trainer, ImageExamples(train_data.select(range(SHARPNESS_SIZE)), processor)


def main(args: list[str]) -> None:
    Comparison(
        script=__file__,
        title=__doc__.splitlines()[0],
        methods=METHODS,
        scores={"accuracy": "accuracy", "top5_accuracy": "top-5"},
        build=build,
        arguments={
            "per_device_train_batch_size": BATCH_SIZE,
            "per_device_eval_batch_size": 256,
            "learning_rate": 2e-3,
            "lr_scheduler_type": "cosine",
            "warmup_steps": 0.1,
            "weight_decay": 0.05,
        },
        epochs=20,
        output_dir="output/demo_vit",
        explanation=(
            f"{TRAIN_SIZE} training images, {LABEL_NOISE:.0%} of them with a wrong label, and 797 evaluation images; "
            f"{{updates}} updates of {BATCH_SIZE} images."
        ),
        rho=RHO,
    ).main(args)


if __name__ == "__main__":
    run_script(main, go_on="the same command starts again")
