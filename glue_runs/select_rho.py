"""
Choose rho for each GLUE task on a held-out tenth of its training sample.

    python glue_runs/select_rho.py --tasks cola rte --model DIR --data_dir DIR --rho_file recipes/glue/minilm.yaml
"""

from functools import partial

from hf_sam_recipes.benchmarks.glue import GLUE
from hf_sam_recipes.common.entry import run_script
from hf_sam_recipes.matrix.command_line import rho_main


if __name__ == "__main__":
    run_script(partial(rho_main, GLUE), go_on="the same command goes on from here")
