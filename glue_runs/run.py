"""
Fine-tune on every GLUE task with every method and every seed: what is missing of it, one record per finished run.

    python glue_runs/run.py --tasks cola rte --methods adamw sam sampa-0.1 --seeds 1 2 3 --model DIR --data_dir DIR

Stop it at any time; the same command goes on. Start it twice, and the two share the work.
"""

from functools import partial

from hf_sam_recipes.benchmarks.glue import GLUE
from hf_sam_recipes.common.entry import run_script
from hf_sam_recipes.matrix.command_line import run_main


if __name__ == "__main__":
    run_script(partial(run_main, GLUE), go_on="the same command goes on from here")
