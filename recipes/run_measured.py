"""
Train with a recipe script and leave its measurements in `result.json`. Started by the runners over whole matrices.

    python recipes/run_measured.py --result_folder FOLDER --recipe run_glue -- recipes/glue/mrpc/sam.yaml --seed 1 ...
"""

import argparse
import importlib
import json
import sys
from pathlib import Path

from hf_sam_recipes.matrix.lifeline import end_with_runner


def main(args: list[str]) -> None:
    """Everything after `--` goes to the recipe script as it is."""
    own, recipe_args = args[: args.index("--")], args[args.index("--") + 1 :]
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--result_folder", type=Path, required=True)
    parser.add_argument("--recipe", required=True, help="module of the recipe script")
    parser.add_argument("--sharpness_examples", type=int, default=0)
    parser.add_argument("--ascent_steps", type=int, default=5)
    parser.add_argument("--hessian_iterations", type=int, default=0)
    options = parser.parse_args(own)
    end_with_runner()

    # Slow to import, and the lifeline should be there first.
    from torch.distributed.elastic.multiprocessing.errors import record

    # Under torchrun, the error of a rank becomes a part of torchrun's report.
    record(_measure)(options, recipe_args)


def _measure(options: argparse.Namespace, recipe_args: list[str]) -> None:
    from hf_sam_recipes.common.workflow import leave_processes
    from hf_sam_recipes.matrix.measure import train_and_measure

    result = train_and_measure(
        importlib.import_module(options.recipe),
        recipe_args,
        options.sharpness_examples,
        options.ascent_steps,
        options.hessian_iterations,
    )
    if result is not None:
        (options.result_folder / "result.json").write_text(json.dumps(result))
    leave_processes()


if __name__ == "__main__":
    main(sys.argv[1:])
