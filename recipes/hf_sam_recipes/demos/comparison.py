"""What the demos share: every method trained in processes of its own, then one table."""

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader, Dataset
from transformers import Trainer, TrainingArguments, set_seed

from hf_sam import SAMConfig
from hf_sam.diagnostics import worst_case_sharpness

from ..common import workflow
from ..common.clock import UpdateClock
from ..common.entry import is_at_work
from ..common.folders import made_folder
from ..common.launch import launcher
from ..common.parser import ScriptParser


@dataclass(frozen=True)
class Comparison:
    """
    The command line of a demo.

    Args:
        script (`str`): The demo's `__file__`, which is started once more for every method.
        title (`str`): One line for `--help`.
        methods (`dict[str, tuple[int, SAMConfig | None]]`): Number of processes and options of each method; `None` is
            the stock Trainer. The ratio of times is to the one named `adamw`.
        scores (`dict[str, str]`): Metric (without `eval_`) -> heading of its column.
        build (`Callable[[SAMConfig | None, TrainingArguments], tuple[Trainer, Dataset]]`): Makes the trainer of a
            method, and the training examples to measure sharpness on. Called with the seed set.
        arguments (`dict[str, Any]`): `TrainingArguments` of the demo's own.
        epochs (`float`): Passes over the training data, unless `--epochs` is given.
        output_dir (`str`): Where the results are written, unless `--output_dir` is given.
        explanation (`str`): Printed above the table; `{updates}` becomes the number of updates.
        rho (`float`): Radius within which sharpness is measured.
    """

    script: str
    title: str
    methods: dict[str, tuple[int, SAMConfig | None]]
    scores: dict[str, str]
    build: Callable[[SAMConfig | None, TrainingArguments], tuple[Trainer, Dataset]]
    arguments: dict[str, Any]
    epochs: float
    output_dir: str
    explanation: str
    rho: float

    def main(self, args: list[str]) -> None:
        parser = ScriptParser(self.title)
        names = list(self.methods)
        parser.add_argument("--methods", nargs="+", choices=names, default=names, help="what to train")
        parser.add_argument("--seed", type=int, default=0, help="seeds weights, data order and dropout")
        parser.add_argument("--epochs", type=float, default=self.epochs, help="passes over the training data")
        parser.add_argument("--output_dir", type=Path, default=Path(self.output_dir), help="where results are written")
        parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
        options = parser.parse_args(args)
        if options.epochs <= 0:
            raise ValueError(f"epochs={options.epochs}: must be above 0.")
        if options.seed < 0:
            raise ValueError(f"seed={options.seed}: must be at least 0.")
        made_folder("output_dir", options.output_dir)
        if options.worker:
            # The demo that has started this process says what there is to say.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            self._train(options.methods[0], options)
            return
        results = {method: self._run(method, options) for method in options.methods}
        print("\n" + self.explanation.format(updates=next(iter(results.values()))["updates"]))
        print(f"Sharpness: rise of the training loss to the worst point within rho = {self.rho}.")
        print("Seconds per update: median, one thread per process; ratio to AdamW on one process.\n")
        print(self.table(results))

    def _run(self, method: str, options: argparse.Namespace) -> dict[str, float]:
        """Train one method in processes of its own and return what came out."""
        processes = self.methods[method][0]
        command = [*launcher(processes), self.script, "--worker", "--methods", method]
        command += ["--seed", str(options.seed), "--epochs", str(options.epochs)]
        command += ["--output_dir", str(options.output_dir)]
        print(f"\n{method}: {processes} process{'es' * (processes > 1)}", flush=True)
        # Every process gets one thread, so that a method does not look fast for having the other core to itself.
        status = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}).returncode
        if status != 0:
            sys.exit(f"{method} failed with exit status {status}; the error is above.")
        return json.loads((options.output_dir / f"{method}.json").read_text())

    @is_at_work()
    def _train(self, method: str, options: argparse.Namespace) -> None:
        """Train in this process, or as one rank, and write what came out to `<method>.json`."""
        processes, sam_config = self.methods[method]
        assert int(os.environ.get("WORLD_SIZE", 1)) == processes
        set_seed(options.seed)
        training_args = TrainingArguments(
            output_dir=str(options.output_dir / method),
            num_train_epochs=options.epochs,
            logging_strategy="epoch",
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            ddp_find_unused_parameters=False,
            dataloader_pin_memory=False,
            seed=options.seed,
            **self.arguments,
        )
        trainer, sample = self.build(sam_config, training_args)
        clock = UpdateClock()
        trainer.add_callback(clock)
        workflow.average_micro_batches(trainer)
        trainer.train()
        metrics = trainer.evaluate()
        if trainer.is_world_process_zero():
            batches = DataLoader(sample, training_args.per_device_train_batch_size, collate_fn=trainer.data_collator)
            result = {name: metrics[f"eval_{name}"] for name in (*self.scores, "loss")}
            result["sharpness"] = worst_case_sharpness(trainer.model, batches, rho=self.rho, steps=5).sharpness
            result |= {"seconds_per_update": clock.seconds_per_update(), "updates": trainer.state.global_step}
            (options.output_dir / f"{method}.json").write_text(json.dumps(result, indent=1))

    def table(self, results: dict[str, dict[str, float]]) -> str:
        """One line per method, as text."""
        headings = [*self.scores.values(), "eval loss", "sharpness", "s/update", "ratio"]
        lines = [f"{'method':<10} {'processes':>9} " + " ".join(f"{heading:>9}" for heading in headings)]
        base = results.get("adamw", {}).get("seconds_per_update")
        for method, result in results.items():
            ratio = f"{result['seconds_per_update'] / base:.2f}" if base else "-"
            values = [f"{result[name]:.3f}" for name in (*self.scores, "loss")]
            values += [f"{result['sharpness']:.4f}", f"{result['seconds_per_update']:.4f}", ratio]
            numbers = " ".join(f"{value:>9}" for value in values)
            lines.append(f"{method:<10} {self.methods[method][0]:>9} {numbers}")
        return "\n".join(lines)
