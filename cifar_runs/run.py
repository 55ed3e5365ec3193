"""
Fine-tune on CIFAR-10 and CIFAR-100 with every method and every seed: what is missing of it, one record per run.

    python cifar_runs/run.py --tasks cifar10 --methods adamw sam sampa-0.2 --seeds 1 2 3 --label_noise 0.4

Stop it at any time; the same command goes on. Start it twice, and the two share the work.
"""

from functools import partial

from hf_sam_recipes.benchmarks.cifar import CIFAR
from hf_sam_recipes.common.entry import run_script
from hf_sam_recipes.matrix.command_line import run_main


if __name__ == "__main__":
    run_script(partial(run_main, CIFAR), go_on="the same command goes on from here")
