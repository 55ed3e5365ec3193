"""
Write `cifar_runs/README.md` and its plots from the studies and the records alone.

    python cifar_runs/report.py
"""

import sys

from hf_sam_recipes.benchmarks.cifar import CIFAR
from hf_sam_recipes.matrix.report import report_main


if __name__ == "__main__":
    sys.exit(report_main(CIFAR))
