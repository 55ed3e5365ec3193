"""The documentation of what holds for which host, made from the table that the tests run."""

from pathlib import Path

from tests.stack.hosts import HOSTS


PAGE = Path(__file__).resolve().parents[2] / "docs" / "stack.md"
COLUMNS = [("sam", 1), ("sam", 2), ("sampa", 1), ("sampa", 2)]
TEXT = """# Trainers that hf_sam stands in front of

Made from the table of `tests/stack`: `python -m tests.stack.table > docs/stack.md`.

`class Mine(SAMTrainerMixin, AnyTrainer)` works with these. Every cell is run by the tests, where the package is
installed (`pip install -e '.[dev,stack]'`):

- **SAM**: with `rho=0` the weights are the stock class's bit for bit, and all that it logs is the same (losses,
  accuracies, token counts, lengths of completions); with a radius the weights are those of an independent two-pass
  SAM, and the log is that of the unperturbed pass, counted once.
- **SAMPa** on one process: with `rho=0`, `sampa_lambda=0` and no dropout the weights are the stock class's bit for
  bit; with a radius they are those of an independent loop.
- **SAMPa** on a pair of ranks: weights and log are those of one process, also where the windows of the two differ in
  length and the loss gathers over ranks.

"""
NOTES = """
What a host prepares, counts and collects in its training step happens once for each micro-batch, and only forward and
backward pass are repeated: completions are generated once, both passes see them, and step counters and metrics move as
without SAM. This holds for what the host returns from `_prepare_inputs`, and for numbers, small tensors, and lists and
dictionaries of them that are attributes of the trainer. What a host changes elsewhere (a teacher that it averages in
its step, a file) happens in every pass.

Refused by name beside the cells above: trl's `OnlineDPOTrainer` and others that generate in a `training_step` of their
own; a `training_step` above the mixin that does not call `super()`; the mixin behind a trainer in the list of bases.

What the hosts leave out stays left out. A checkpoint of sentence-transformers has no weights of the loss, one of trl's
online trainers no completions that are still to be used, so neither class resumes bit for bit, with or without SAM.
Under DistributedDataParallel the weights of a loss are not averaged over ranks.

A resumed run of the stock Trainer on three or more ranks differs from an uninterrupted one by rounding, since
DistributedDataParallel sums in other buckets in its first update; with SAM and SAMPa it is equal bit for bit, by one
gradient at the start that counts for nothing. The metrics that a host collects for its log are, under SAMPa, those of
the pass at the lookahead weights.

Not tried: liger kernels and DataParallel on several accelerators, which need them (DataParallel's wrapper alone has a
test), and generation by vLLM.
"""


def cell(host: str, method: str, ranks: int) -> str:
    words = HOSTS[host].refused.get((method, ranks))
    return "yes" if words is None else f"refused: {words}"


def page() -> str:
    lines = ["| host | package | SAM | SAM, 2 ranks | SAMPa | SAMPa, a pair |", "|---|---|---|---|---|---|"]
    for name, host in HOSTS.items():
        cells = " | ".join(cell(name, *column) for column in COLUMNS)
        lines.append(f"| {name} | `{host.package}` | {cells} |")
    return TEXT + "\n".join(lines) + "\n" + NOTES


if __name__ == "__main__":
    print(page(), end="")
