"""
Train with a recipe script and leave its measurements in `result.json`. Started by the runners over whole matrices.

    python recipes/run_measured.py --result_folder FOLDER --recipe run_glue -- recipes/glue/mrpc/sam.yaml --seed 1 ...
"""

import importlib.util
import json
from pathlib import Path

from hf_sam_recipes.common.entry import run_script
from hf_sam_recipes.common.folders import existing_folder
from hf_sam_recipes.common.parser import ScriptParser
from hf_sam_recipes.matrix.lifeline import end_with_runner


def main(args: list[str]) -> None:
    """Everything after `--` goes to the recipe script as it is."""
    end = args.index("--") if "--" in args else len(args)
    parser = ScriptParser(__doc__)
    parser.add_argument("--result_folder", type=Path, required=True)
    parser.add_argument("--recipe", required=True, help="module of the recipe script")
    parser.add_argument("--sharpness_examples", type=int, default=0)
    parser.add_argument("--ascent_steps", type=int, default=5)
    parser.add_argument("--hessian_iterations", type=int, default=0)
    options = parser.parse_args(args[:end])
    if importlib.util.find_spec(options.recipe) is None:
        raise ValueError(f"recipe={options.recipe!r}: no such script beside this one; use run_glue or run_cifar.")
    existing_folder("result_folder", options.result_folder)
    end_with_runner()

    # Slow to import, and the lifeline should be there first.
    from hf_sam_recipes.matrix.measure import train_and_measure

    result = train_and_measure(
        importlib.import_module(options.recipe),
        args[end + 1 :],
        options.sharpness_examples,
        options.ascent_steps,
        options.hessian_iterations,
    )
    if result is not None:
        (options.result_folder / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    run_script(main, go_on="the command of the runner goes on")
