"""
Write `cifar_runs/README.md` and its plots from the records alone.

    python cifar_runs/report.py
"""

import sys
from pathlib import Path


sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "recipes"))

from cifar_benchmark import CIFAR
from matrix.report import report_main


if __name__ == "__main__":
    sys.exit(report_main(CIFAR))
