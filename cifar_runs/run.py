"""
Do what is missing of a study of CIFAR: choose what is to be chosen, then every task with every method and every seed.

    python cifar_runs/run.py memorising --data_dir DIR --jobs 2

Stop it at any time; the same command goes on. Start it twice, and the two share the work.
"""

from functools import partial

from hf_sam_recipes.benchmarks.cifar import CIFAR
from hf_sam_recipes.common.entry import run_script
from hf_sam_recipes.matrix.command_line import run_main


if __name__ == "__main__":
    run_script(partial(run_main, CIFAR), go_on="the same command goes on from here")
