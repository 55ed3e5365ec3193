"""Peak of live tensor bytes during an update, of this library's methods over the stock Trainer with AdamW.

    python benchmarks/memory.py                             # all cases
    python benchmarks/memory.py --cases sam sampa-2

Bytes are counted storage by storage as they come and go (see `live_bytes.py`), so the figures can be repeated and do
not depend on how busy the machine is. On several ranks, that of the rank with the largest peak is reported.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from live_bytes import LiveBytes
from tqdm import tqdm
from transformers import TrainerCallback
from workload import (
    REPOSITORY,
    TINY,
    ModelSize,
    build_trainer,
    format_table,
    provenance,
    require_world_size,
    trainable_bytes,
    worker_command,
    write_json,
)


@dataclass(frozen=True)
class Case:
    """The peak of `method`, less that of the stock Trainer on as many ranks, may be at most
    `parameters` × bytes of trainable parameters + `buckets` × bytes of the largest gradient bucket."""

    method: str
    processes: int
    parameters: float
    buckets: int = 0


CASES = {
    "none": Case("none", 1, 0.0),
    "sam": Case("sam", 1, 1.05),
    "sampa-1": Case("sampa", 1, 2.1),
    "sam-rank-2": Case("sam", 2, 1.05),
    "sam-global-2": Case("sam-global", 2, 1.05),
    "sampa-2": Case("sampa", 2, 2.1, buckets=1),
}
# The first updates bring the optimizer's state, DDP's final buckets and SAMPa's first gradient.
WARMUP, MEASURED = 3, 2


class ResetPeak(TrainerCallback):
    def __init__(self, counter: LiveBytes):
        self.counter = counter

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == WARMUP:
            self.counter.reset_peak()


def measure(method: str, size: ModelSize, batch_size: int, measured: int = MEASURED) -> dict:
    """Train a few updates in this process: those of the warm-up, and `measured`.

    Returns:
        `dict`: `peak_bytes`, the most bytes of tensors alive at once in the updates after the warm-up, and
        `bucket_bytes`, the largest gradient bucket of DDP (0 without DDP).
    """
    counter = LiveBytes()
    with tempfile.TemporaryDirectory() as output_dir, counter:
        updates = WARMUP + measured
        trainer = build_trainer(method, size, batch_size, updates, output_dir, callbacks=[ResetPeak(counter)])
        trainer.train()
        peak = counter.peak
    buckets = [0]
    if isinstance(trainer.model_wrapped, torch.nn.parallel.DistributedDataParallel):
        data = trainer.model_wrapped._get_ddp_logging_data()
        buckets = [int(b) for b in (data.get("rebuilt_bucket_sizes") or data["bucket_sizes"]).split(",")]
    return {"peak_bytes": peak, "bucket_bytes": max(buckets)}


def measure_apart(method: str, processes: int, size: ModelSize, batch_size: int) -> dict:
    """`measure` on ranks of their own; the result of the rank with the largest peak."""
    with tempfile.TemporaryDirectory() as folder:
        task = {"method": method, "processes": processes, "size": asdict(size), "batch_size": batch_size}
        command, environment = worker_command(__file__, processes)
        subprocess.run([*command, "--worker", json.dumps({**task, "folder": folder})], env=environment, check=True)
        reports = [json.loads(path.read_text()) for path in sorted(Path(folder).glob("*.json"))]
    if len(reports) != processes:
        raise RuntimeError(f"{processes} ranks of {method} wrote {len(reports)} reports.")
    return max(reports, key=lambda report: report["peak_bytes"])


def work(task: dict):
    require_world_size(task["processes"])
    report = measure(task["method"], ModelSize(**task["size"]), task["batch_size"])
    (Path(task["folder"]) / f"{os.environ.get('RANK', '0')}.json").write_text(json.dumps(report))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def summarize(name: str, case: Case, ours: dict, stock: dict, parameter_bytes: int) -> dict:
    return {
        "case": name,
        **asdict(case),
        "peak_bytes": ours["peak_bytes"],
        "stock_peak_bytes": stock["peak_bytes"],
        "bucket_bytes": stock["bucket_bytes"],
        "extra_bytes": ours["peak_bytes"] - stock["peak_bytes"],
        "allowed_bytes": round(case.parameters * parameter_bytes) + case.buckets * stock["bucket_bytes"],
    }


def table(results: list[dict], parameter_bytes: int) -> str:
    columns = ["peak_bytes", "stock_peak_bytes", "extra_bytes", "allowed_bytes"]
    rows = [
        [
            r["case"],
            str(r["processes"]),
            *(f"{r[c] / 2**20:.1f}" for c in columns),
            f"{r['extra_bytes'] / parameter_bytes:.3f}",
            f"{r['parameters']:.2f}" + " + bucket" * r["buckets"],
        ]
        for r in results
    ]
    header = ["case", "ranks", "peak MiB", "stock MiB", "extra MiB", "at most", "extra/parameters", "at most"]
    return format_table(header, rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES), metavar="CASE", help="which")
    parser.add_argument("--batch_size", type=int, default=32, help="examples per rank and update")
    parser.add_argument("--tiny", action="store_true", help="a model of no use but to try the benchmark itself")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "output" / "benchmarks" / "memory.json")
    parser.add_argument("--worker", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(args.worker)
        return
    size = TINY if args.tiny else ModelSize()
    cases = {name: CASES[name] for name in args.cases}
    runs = [(method, case.processes) for case in cases.values() for method in ("stock", case.method)]
    progress = tqdm(list(dict.fromkeys(runs)), unit="run")
    measured = {run: measure_apart(*run, size, args.batch_size) for run in progress}
    parameter_bytes = trainable_bytes(size.build())
    results = [
        summarize(n, c, measured[c.method, c.processes], measured["stock", c.processes], parameter_bytes)
        for n, c in cases.items()
    ]
    content = {"batch_size": args.batch_size, "trainable_bytes": parameter_bytes, "results": results}
    write_json(args.output, {**provenance(size), **content})
    print(table(results, parameter_bytes))
    print(f"Trainable parameters: {parameter_bytes / 2**20:.1f} MiB. Written to {args.output}.")
    if any(r["extra_bytes"] > r["allowed_bytes"] for r in results):
        sys.exit("A peak is above what is allowed.")


if __name__ == "__main__":
    main()
