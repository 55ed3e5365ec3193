"""
Choose rho for each GLUE task on a held-out tenth of its training sample.

    python glue_runs/select_rho.py --tasks cola rte --model DIR --data_dir DIR --rho_file recipes/glue/minilm.yaml
"""

import sys

from hf_sam_recipes.benchmarks.glue import GLUE
from hf_sam_recipes.matrix.command_line import rho_main


if __name__ == "__main__":
    sys.exit(rho_main(GLUE))
