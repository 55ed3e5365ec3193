"""GLUE as the runner and the report know it."""

from ..matrix.benchmark import Benchmark, BenchmarkTask


# Training and validation examples of the official splits (gluebenchmark.com). Published values as in the README of
# transformers' text-classification examples, and as in Kaddour et al. 2022 (https://arxiv.org/abs/2202.00661).
TASKS = (
    BenchmarkTask("cola", "CoLA", "matthews_correlation", "Matthews correlation", 8551, 1043, "56.5", "+1.6 ± 1.2"),
    BenchmarkTask("sst2", "SST-2", "accuracy", "accuracy", 67349, 872, "92.3", "-0.2 ± 0.4"),
    BenchmarkTask(
        "mrpc",
        "MRPC",
        "combined_score",
        "mean of accuracy and F1",
        3668,
        408,
        "88.9 / 84.1 (F1 / accuracy)",
        "+0.7 ± 0.4",
    ),
    BenchmarkTask(
        "stsb",
        "STS-B",
        "combined_score",
        "mean of Pearson and Spearman correlation",
        5749,
        1500,
        "88.6 / 88.5 (Pearson / Spearman)",
        "+0.4 ± 0.2",
    ),
    BenchmarkTask(
        "qqp", "QQP", "combined_score", "mean of accuracy and F1", 363846, 40430, "90.7 / 87.5 (accuracy / F1)", "+0.1"
    ),
    BenchmarkTask(
        "mnli", "MNLI", "accuracy", "accuracy, matched", 392702, 9815, "83.9 / 84.1 (matched / mismatched)", "+0.4"
    ),
    BenchmarkTask("qnli", "QNLI", "accuracy", "accuracy", 104743, 5463, "90.7", "+0.1"),
    BenchmarkTask("rte", "RTE", "accuracy", "accuracy", 2490, 277, "65.7", "+0.7 ± 0.7"),
    BenchmarkTask("wnli", "WNLI", "accuracy", "accuracy", 635, 71, "56.3"),
)

GLUE = Benchmark(
    title="GLUE",
    folder="glue_runs",
    script="recipes/run_glue.py",
    options="hf_sam_recipes.glue.options",
    recipes="recipes/glue",
    tasks=TASKS,
    methods=("adamw", "adamw-2x", "sam", "sampa-0", "sampa-0.1"),
    equal_compute="adamw-2x",
    published_by="published: AdamW, bert-base-cased, whole task",
    published_difference_by="published: SAM minus Adam, RoBERTa-base, whole task",
)
