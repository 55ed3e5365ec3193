"""
Write `cifar_runs/README.md` and its plots from the studies and the records alone.

    python cifar_runs/report.py
"""

from functools import partial

from hf_sam_recipes.benchmarks.cifar import CIFAR
from hf_sam_recipes.common.entry import run_script
from hf_sam_recipes.matrix.report import report_main


if __name__ == "__main__":
    run_script(partial(report_main, CIFAR), go_on="the same command starts again")
