"""The results of a model card: which evaluation it shows, and what the Hub calls the metrics."""

import re
from dataclasses import replace
from typing import Any

from huggingface_hub import EvalResult

from .card_texts import HUB_METRICS, METRIC_TITLES


def card_history(log_history: list[dict[str, Any]], best_step: int | None = None) -> list[dict[str, Any]]:
    """
    The log as the host's card should read it: also in the middle of training, and with the evaluation of the weights
    that are saved at its end.

    Args:
        log_history (`list[dict]`): of the Trainer's state.
        best_step (`int`, *optional*): the step whose weights were loaded at the end of training.
    """
    history = list(log_history)
    end = next((i for i, entry in enumerate(history) if "train_runtime" in entry), None)
    if end is None:
        end, best_step = len(history), None
        history.append({"train_runtime": None})
    evaluations = [entry for entry in history[end:] if _is_evaluation(entry)]
    if not evaluations:
        evaluations = [entry for entry in history[:end] if _is_evaluation(entry)]
        if best_step is not None:
            evaluations = [entry for entry in evaluations if entry["step"] == best_step] or evaluations
    if evaluations:
        last_step = evaluations[-1]["step"]
        together = {}
        for entry in evaluations:
            together |= entry if entry["step"] == last_step else {}
        history.append(together)
    return history


def _is_evaluation(entry: dict[str, Any]) -> bool:
    return any(key.startswith("eval_") for key in entry)


def hub_eval_results(template: EvalResult, log_history: list[dict[str, Any]]) -> list[EvalResult]:
    """
    The last evaluation in `log_history` in the Hub's vocabulary; a metric that the Hub does not know is left out.

    Args:
        template (`EvalResult`): the task and the dataset.
        log_history (`list[dict]`): as [`card_history`] returns it. A key `eval_<name>_<metric>` is the metric of
            another evaluation set where there is an `eval_<name>_loss` too, as the Trainer logs for every set.
    """
    if isinstance(template.dataset_args, str) and template.dataset_config is None:
        template = replace(template, dataset_config=template.dataset_args)
    results = []
    last = log_history[-1]
    sets = ["eval_", *(key.removesuffix("loss") for key in last if re.fullmatch("eval_.+_loss", key))]
    known = {f"{prefix}{name}": (prefix, name) for prefix in sets for name in HUB_METRICS}
    for key, value in last.items():
        if key not in known or not isinstance(value, (int, float)):
            continue
        prefix, name = known[key]
        dataset = prefix.removeprefix("eval_").removesuffix("_")
        dataset_name = f"{template.dataset_name} ({dataset})" if dataset else template.dataset_name
        metric_name = METRIC_TITLES.get(name, name.replace("_", " ").capitalize())
        results.append(
            replace(
                template,
                dataset_name=dataset_name,
                # Results of one task and dataset are told apart from those of another by what is unique to them.
                dataset_split=dataset or template.dataset_split,
                metric_type=HUB_METRICS[name],
                metric_name=metric_name,
                metric_value=value,
            )
        )
    return results
