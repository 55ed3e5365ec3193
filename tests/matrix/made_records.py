"""Records as the runner writes them, with random numbers in them."""

import copy
from pathlib import Path
from typing import Any

import numpy as np

from hf_sam_recipes.matrix.records import RecordStore


# Hub's metric names, training and evaluation examples: QNLI and the evaluation of QQP are subsets.
TASKS = {
    "cola": (("matthews_correlation",), 8551, 1043),
    "rte": (("accuracy",), 2490, 277),
    "qqp": (("accuracy", "f1", "combined_score"), 363846, 1000),
    "qnli": (("accuracy",), 8999, 5463),
}
GRADIENTS = {"adamw": 1, "adamw-2x": 2, "sam": 2, "sampa-0": 2, "sampa-0.1": 2}
SEEDS = (1, 2, 3)
SETTINGS = {
    "model": "tiny",
    "epochs": 2.0,
    "sharpness_examples": 64,
    "ascent_steps": 5,
    "hessian_iterations": 20,
    "options": {"max_length": "64"},
}


def made_record(task: str, method: str, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng([sorted(TASKS).index(task), sorted(GRADIENTS).index(method), seed])
    metrics, train_size, eval_size = TASKS[task]
    epochs = []
    for epoch in (1, 2):
        entry = {"epoch": float(epoch), "updates": 10 * epoch, "train_loss": rng.uniform(), "eval_loss": rng.uniform()}
        entry["train_seconds"] = epoch * rng.uniform(1, 2)
        epochs.append(entry | {f"eval_{name}": rng.uniform(0.5, 0.9) for name in metrics})
    last = {name.removeprefix("eval_"): value for name, value in epochs[-1].items() if name.startswith("eval_")}
    return {
        "status": "finished",
        "task": task,
        "method": method,
        "seed": seed,
        "rho": None if method.startswith("adamw") else 0.05,
        "run_info": {
            "command": f"python recipes/run_glue.py recipes/glue/{task}/{method}.yaml --seed={seed}",
            "date": f"2024-01-0{seed}T00:00:00+00:00",
            "duration_seconds": 60.0,
            "jobs_side_by_side": 2,
            "git_commit": "0" * 40,
            "uncommitted_changes": False,
        },
        "train_info": {
            "metrics": last,
            "epochs": epochs,
            "updates": 20,
            "gradient_computations": 20 * GRADIENTS[method] + method.startswith("sampa"),
            "seconds_per_update": rng.uniform(0.1, 0.2),
            "train_seconds": epochs[-1]["train_seconds"],
            "peak_memory_bytes": int(rng.integers(2**28, 2**29)),
            "peak_memory_of": "process, resident",
            "sharpness": {"rho": 0.05, "sharpness": rng.uniform(), "top_eigenvalue": {"value": rng.uniform(1, 9)}},
        },
        "meta_info": {
            "settings": copy.deepcopy(SETTINGS),
            "versions": {"python": "3.11", "torch": "2.6"},
            "hardware": {"processor": "a processor", "cores": 2, "threads": 1, "gpus": []},
            "processes": 1,
            "data": {"train_samples": train_size, "eval_samples": {"eval_samples": eval_size}},
        },
    }


def made_failure(task: str, method: str, seed: int) -> dict[str, Any]:
    record = made_record(task, method, seed)
    del record["train_info"]
    record["meta_info"] = {"settings": copy.deepcopy(SETTINGS), "versions": {}}
    return record | {"status": "failed", "error": "Traceback\nRuntimeError: out | of luck\nexit status 1"}


def write_study(folder: Path, leave_out: set[tuple[str, str, int]] = frozenset(), fail=frozenset()) -> dict:
    """Write every record but those left out, and return the finished ones by task, method, seed."""
    store, records = RecordStore(folder), {}
    for task in TASKS:
        for method in GRADIENTS:
            for seed in SEEDS:
                key = (task, method, seed)
                if key in leave_out:
                    continue
                record = made_failure(*key) if key in fail else made_record(*key)
                store.write(f"{task}/{method}/seed-{seed}", record)
                if key not in fail:
                    records[key] = record
    return records
