"""
Choose rho for CIFAR-10 and CIFAR-100 on a held-out tenth of the training images.

    python cifar_runs/select_rho.py --tasks cifar10 --rho_file recipes/cifar/chosen.yaml
"""

import sys

from hf_sam_recipes.benchmarks.cifar import CIFAR
from hf_sam_recipes.matrix.command_line import rho_main


if __name__ == "__main__":
    sys.exit(rho_main(CIFAR))
