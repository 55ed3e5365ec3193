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
    notes=(
        "`small_vit` and `small_vit_patch8` are models of `recipes/cifar`: a ViT of 6 M parameters with patches of 4 "
        "and of 8 pixels, trained from scratch with `from_scratch`.",
        "`label_noise` is the part of the training labels that is wrong; the test labels are all right. Then the "
        "training loss rewards learning the wrong labels by heart, and the test accuracy shows who did.",
        "For `small_vit_patch8`, rho was chosen with `sam` and the settings of `memorising`, on the 18,000 training "
        "images that this run of seed 1 left out: `../recipes/cifar/small_vit_patch8.yaml`, records in `rho_choice/`. "
        "It is the recipes' own 0.05, and all studies use it.",
        "The times of `clean` say nothing: other work shared the machine with some of its runs.",
        "The last weights are evaluated, not the best ones: the test images choose nothing.",
    ),
)
