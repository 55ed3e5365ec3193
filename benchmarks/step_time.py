"""Seconds per update of this library's methods over those of the stock Trainer, as medians of ratios.

    python benchmarks/step_time.py                          # all cases, about 25 minutes on two idle cores
    python benchmarks/step_time.py --cases none sam --rounds 4 --updates 2

In each round every training makes a block of updates, in an order that is reversed from round to round; a ratio is
taken within a round, and the median over the rounds is reported. Numbers mean something on an idle machine only.
"""

import argparse
import statistics
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm
from turns import Training, Workers
from workload import REPOSITORY, TINY, ModelSize, format_table, provenance, trainable_bytes, write_json


@dataclass(frozen=True)
class Case:
    """The time of `ours` over that of `theirs`, and what it may be at most (`None`: reported, whatever it is).

    Cases of the same session run in the same processes, alternating with each other.
    """

    ours: Training
    theirs: Training
    target: float | None
    session: str


def same_total_batch(batch_size: int) -> Case:
    """SAMPa's pair reads one shard: `batch_size` examples per rank and update are `batch_size` in all."""
    ours, theirs = Training("sampa", 2, batch_size), Training("sam-global", 2, batch_size // 2)
    return Case(ours, theirs, None, "small batches" if batch_size < 32 else "two ranks")


STOCK_1, SAM_1 = Training("stock", 1, 32), Training("sam", 1, 32)
STOCK_2, SAMPA_2 = Training("stock", 2, 32), Training("sampa", 2, 32)
CASES = {
    "none": Case(Training("none", 1, 32), STOCK_1, 1.02, "one rank"),
    "sam": Case(SAM_1, STOCK_1, 2.05, "one rank"),
    "sampa-1": Case(Training("sampa", 1, 32), STOCK_1, None, "one rank"),
    "sam-rank-2": Case(Training("sam", 2, 32), STOCK_2, 2.0, "two ranks"),
    "sam-global-2": Case(Training("sam-global", 2, 32), STOCK_2, None, "two ranks"),
    "sampa-2": Case(SAMPA_2, STOCK_2, 1.05, "two ranks"),
    "sampa-2-same-batch-32": same_total_batch(32),
    "sampa-2-same-batch-8": same_total_batch(8),
    "sampa-2-same-batch-2": same_total_batch(2),
    "sampa-2-stock-1": Case(SAMPA_2, STOCK_1, 1.15, "one rank and two"),
    "sampa-2-sam-1": Case(SAMPA_2, SAM_1, 0.60, "one rank and two"),
    # Four ranks share two cores, so only the bytes sent mean something.
    "sampa-4-bytes": Case(Training("sampa", 4, 2), Training("stock", 4, 2), None, "four ranks"),
    "sam-rank-4-bytes": Case(Training("sam", 4, 2), Training("stock", 4, 2), None, "four ranks"),
}


def measure(trainings: list[Training], size: ModelSize, rounds: int, updates: int, warmup: int) -> dict:
    """Let the trainings alternate.

    Returns:
        `dict[Training, dict]`: `seconds`, the median update of each round, and `bytes_sent`, per rank and update.
    """
    groups: dict[int, list[Training]] = {}
    for training in trainings:
        groups.setdefault(training.processes, []).append(training)
    total = warmup + rounds * updates
    results = {t: {"seconds": [], "bytes_sent": None} for t in trainings}
    with ExitStack() as stack:
        workers = {n: stack.enter_context(Workers(group, size, total + 1)) for n, group in groups.items()}
        progress = stack.enter_context(tqdm(total=total * len(trainings), unit="update"))
        for turn in range(rounds + 1):
            block = updates if turn else warmup
            for training in trainings if turn % 2 else reversed(trainings):
                progress.set_description(str(training))
                seconds, sent = workers[training.processes].advance(training, block)
                progress.update(block)
                if turn:
                    results[training]["seconds"].append(statistics.median(seconds))
                    if training.processes > 1 and None not in sent:
                        results[training]["bytes_sent"] = round(max(sent) / block)
    return results


def summarize(name: str, case: Case, measured: dict) -> dict:
    ours, theirs = measured[case.ours], measured[case.theirs]
    ratios = [a / b for a, b in zip(ours["seconds"], theirs["seconds"], strict=True)]
    return {
        "case": name,
        "ours": str(case.ours),
        "over": str(case.theirs),
        "seconds": ours["seconds"],
        "seconds_over": theirs["seconds"],
        "ratios": ratios,
        "ratio": statistics.median(ratios),
        "target": case.target,
        "bytes_sent_per_rank_and_update": ours["bytes_sent"],
        "bytes_sent_per_rank_and_update_over": theirs["bytes_sent"],
    }


def table(results: list[dict], parameter_bytes: int) -> str:
    def sent(count: int | None) -> str:
        return "-" if count is None else f"{count / parameter_bytes:.2f}"

    rows = [
        [
            r["case"],
            r["ours"],
            r["over"],
            f"{statistics.median(r['seconds']):.4f}",
            f"{statistics.median(r['seconds_over']):.4f}",
            f"{r['ratio']:.3f}",
            f"{min(r['ratios']):.3f}-{max(r['ratios']):.3f}",
            "-" if r["target"] is None else f"{r['target']:.2f}",
            sent(r["bytes_sent_per_rank_and_update"]),
            sent(r["bytes_sent_per_rank_and_update_over"]),
        ]
        for r in results
    ]
    header = ["case", "ours", "over", "s/update", "s/update", "ratio", "range", "at most", "sent", "sent over"]
    return format_table(header, rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES), metavar="CASE", help="which")
    parser.add_argument("--rounds", type=int, default=7, help="blocks of updates of each training")
    parser.add_argument("--updates", type=int, default=3, help="updates in a block")
    parser.add_argument("--warmup", type=int, default=2, help="updates of each training before the first block")
    parser.add_argument("--tiny", action="store_true", help="a model of no use but to try the benchmark itself")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "output" / "benchmarks" / "step_time.json")
    args = parser.parse_args()
    for name in ("rounds", "updates", "warmup"):
        if getattr(args, name) < 1:
            parser.error(f"argument --{name}: must be at least 1, got {getattr(args, name)}")

    size = TINY if args.tiny else ModelSize()
    results = []
    for session in dict.fromkeys(CASES[name].session for name in args.cases):
        cases = {name: CASES[name] for name in args.cases if CASES[name].session == session}
        trainings = list(dict.fromkeys(t for case in cases.values() for t in (case.theirs, case.ours)))
        measured = measure(trainings, size, args.rounds, args.updates, args.warmup)
        results += [summarize(name, case, measured) for name, case in cases.items()]
    settings = {"rounds": args.rounds, "updates": args.updates, "warmup": args.warmup}
    parameter_bytes = trainable_bytes(size.build())
    content = {**provenance(size), "settings": settings, "trainable_bytes": parameter_bytes, "results": results}
    write_json(args.output, content)
    print(table(results, parameter_bytes))
    print(
        f"Sent: by each rank in one update, in sizes of the trainable parameters ({parameter_bytes / 2**20:.1f} MiB)."
    )
    print(f"Written to {args.output}.")


if __name__ == "__main__":
    main()
