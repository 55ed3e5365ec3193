"""
Choose rho for CIFAR-10 and CIFAR-100 on a held-out tenth of the training images.

    python cifar_runs/select_rho.py --tasks cifar10 --rho_file recipes/cifar/chosen.yaml
"""

import sys
from pathlib import Path


sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "recipes"))

from cifar_benchmark import CIFAR
from matrix.command_line import rho_main


if __name__ == "__main__":
    sys.exit(rho_main(CIFAR))
