"""
Choose rho for CIFAR-10 and CIFAR-100 on a held-out tenth of the training images.

    python cifar_runs/select_rho.py --tasks cifar10 --rho_file recipes/cifar/chosen.yaml
"""

from functools import partial

from hf_sam_recipes.benchmarks.cifar import CIFAR
from hf_sam_recipes.common.entry import run_script
from hf_sam_recipes.matrix.command_line import rho_main


if __name__ == "__main__":
    run_script(partial(rho_main, CIFAR), go_on="the same command goes on from here")
