"""What each method and each perturbation costs over the stock Trainer with AdamW: gradients, seconds and memory for an
update, on one process, for a small BERT and a small ViT.

    python benchmarks/methods.py                            # all, about half an hour on two idle cores
    python benchmarks/methods.py --cases sam stale --rounds 3
    python -m hf_sam.catalog > docs/methods.md              # with the table made from the result

Gradients are counted in examples that pass through the model, bytes storage by storage (see `live_bytes.py`); both can
be repeated. Seconds are medians of ratios, of trainings that take turns, and mean something on an idle machine only.
"""

import argparse
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path

from memory import measure
from step_time import measure as measure_turns
from tqdm import tqdm
from turns import Training
from workload import (
    REGISTERED,
    REPOSITORY,
    TINY,
    TINY_IMAGES,
    ImageModelSize,
    ModelSize,
    build_trainer,
    format_table,
    provenance,
    trainable_bytes,
    write_json,
)

from hf_sam.methods import METHODS


SIZES = {
    "BERT": ModelSize(hidden=192, layers=4, heads=3, intermediate=768, vocabulary=8000, length=64),
    "ViT": ImageModelSize(),
}
# A multiple of the intervals at which LookSAM, masks and the like do something else.
COUNTED = 100
# LookSAM takes the step that needs most every fifth time.
UPDATES_OF_MEMORY = 6


def count_gradients(name: str, size: ModelSize | ImageModelSize, batch_size: int, updates: int) -> float:
    """Gradients of a window in an update, as a mean over the updates of a run of `updates`."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = build_trainer(name, size, batch_size, updates, folder)
        examples = []
        trainer.model.register_forward_pre_hook(
            lambda model, args, kwargs: examples.append(len(kwargs["labels"])), with_kwargs=True
        )
        trainer.train()
    return sum(examples) / updates / batch_size


def summarize(
    name: str, model: str, gradients: float, measured: dict, peaks: tuple[int, int], parameters: int
) -> dict:
    """
    Args:
        gradients (`float`): of `count_gradients`.
        measured (`dict`): training -> what `step_time.measure` says of it.
        peaks (`tuple`): most bytes alive, of this one and of the stock Trainer.
        parameters (`int`): bytes of the trainable parameters.
    """
    (ours,), (stock,) = ([m for t, m in measured.items() if t.method == wanted] for wanted in (name, "stock"))
    ratios = [a / b for a, b in zip(ours["seconds"], stock["seconds"], strict=True)]
    in_pairs = METHODS[REGISTERED[name]["method"]].runs_in_pairs
    return {
        "name": name,
        "model": model,
        "gradients": gradients,
        "sequential": gradients / 2 if in_pairs else gradients,
        "ratios": ratios,
        "time": statistics.median(ratios),
        "memory": (peaks[0] - peaks[1]) / parameters,
    }


def table(results: list[dict]) -> str:
    header = ["case", "model", "gradients", "one after the other", "time / AdamW", "range", "memory - AdamW"]
    rows = [
        [
            r["name"],
            r["model"],
            f"{r['gradients']:.2f}",
            f"{r['sequential']:.2f}",
            f"{r['time']:.2f}",
            f"{min(r['ratios']):.2f}-{max(r['ratios']):.2f}",
            f"{r['memory']:.2f}",
        ]
        for r in results
    ]
    return format_table(header, rows)


def plot(results: list[dict], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = {
        "sequential": "gradients per update, one after the other",
        "time": "seconds over AdamW, one process",
        "memory": "peak memory over AdamW, in parameters",
    }
    names = list(dict.fromkeys(r["name"] for r in results))
    models = list(dict.fromkeys(r["model"] for r in results))
    figure, axes = pyplot.subplots(1, len(panels), figsize=(13, 1.5 + 0.3 * len(names)), sharey=True)
    for axis, (key, title) in zip(axes, panels.items(), strict=True):
        for place, model in enumerate(models):
            own = [r for r in results if r["model"] == model]
            heights = [names.index(r["name"]) + 0.38 * place for r in own]
            axis.barh(heights, [r[key] for r in own], height=0.36, label=model)
        axis.set(title=title)
        axis.grid(axis="x", alpha=0.3)
    axes[0].set_yticks([place + 0.19 for place in range(len(names))], names)
    axes[0].invert_yaxis()
    axes[0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--cases", nargs="+", choices=list(REGISTERED), default=list(REGISTERED), metavar="CASE")
    parser.add_argument("--rounds", type=int, default=7, help="blocks of updates of each training")
    parser.add_argument("--updates", type=int, default=5, help="updates in a block")
    parser.add_argument("--batch_size", type=int, default=16, help="examples per update")
    parser.add_argument("--tiny", action="store_true", help="models of no use but to try the benchmark itself")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "benchmarks" / "results" / "methods.json")
    args = parser.parse_args()
    for name in ("rounds", "updates", "batch_size"):
        if getattr(args, name) < 1:
            parser.error(f"argument --{name}: must be at least 1, got {getattr(args, name)}")

    sizes = {"BERT": TINY, "ViT": TINY_IMAGES} if args.tiny else SIZES
    results = []
    for model, size in sizes.items():
        trainings = [Training(name, 1, args.batch_size) for name in ["stock", *args.cases]]
        measured = measure_turns(trainings, size, args.rounds, args.updates, warmup=2)
        stock_peak = measure("stock", size, args.batch_size, UPDATES_OF_MEMORY)["peak_bytes"]
        # Which gradients are computed does not depend on how large they are.
        counting = replace(size, layers=1)
        for name in tqdm(args.cases, unit="case"):
            gradients = count_gradients(name, counting, 4, COUNTED)
            peak = measure(name, size, args.batch_size, UPDATES_OF_MEMORY)["peak_bytes"]
            parameters = trainable_bytes(size.build())
            results.append(summarize(name, model, gradients, measured, (peak, stock_peak), parameters))
    settings = {name: getattr(args, name) for name in ("rounds", "updates", "batch_size")}
    write_json(args.output, {**provenance(*sizes.values()), "settings": settings, "results": results})
    plot(results, args.output.with_suffix(".png"))
    print(table(results))
    print(f"Written to {args.output}.")


if __name__ == "__main__":
    main()
