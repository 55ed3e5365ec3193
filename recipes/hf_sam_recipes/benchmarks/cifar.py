"""CIFAR as the runner and the report know it."""

from ..matrix.benchmark import Benchmark, BenchmarkTask


# Training and test images of the official splits (Krizhevsky 2009). Published values as in the README of the Google
# reference code (github.com/google-research/vision_transformer).
TASKS = (
    BenchmarkTask("cifar10", "CIFAR-10", "accuracy", "accuracy", 50000, 10000, "98.6 (500 steps)"),
    BenchmarkTask("cifar100", "CIFAR-100", "accuracy", "accuracy", 50000, 10000, "89.2 (500 steps)"),
)

CIFAR = Benchmark(
    title="CIFAR",
    folder="cifar_runs",
    script="recipes/run_cifar.py",
    options="hf_sam_recipes.images.options",
    recipes="recipes/cifar",
    tasks=TASKS,
    methods=("adamw", "adamw-2x", "sam", "sampa-0", "sampa-0.2"),
    equal_compute="adamw-2x",
    published_by="published: SGD, ViT-B/16 pretrained on ImageNet-21k, whole set",
)
