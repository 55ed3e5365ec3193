"""A model card as its readers see it: what the Hub asks of its front matter, and what a section of it says."""

import re

import yaml


REPO_ID = re.compile(r"^[\w.-]+(/[\w.-]+)?$")
LISTS_OF_STRINGS = ("tags", "datasets", "metrics", "language")
REQUIRED_IN_RESULT = (("task", "type"), ("dataset", "type"), ("dataset", "name"))


def card_problems(content: str) -> tuple[list[str], list[str]]:
    """
    Check a `README.md`.

    Returns:
        Errors (the card is refused) and warnings (the card is accepted), one sentence each.
    """
    match = re.match(r"\s*---\r?\n(.*?)\r?\n---\r?\n", content, re.DOTALL)
    if match is None:
        return [], ["empty or missing yaml metadata in repo card"]
    try:
        metadata = yaml.safe_load(match.group(1))
    except yaml.YAMLError as error:
        return [f"invalid YAML: {error}"], []
    if not isinstance(metadata, dict):
        return ["the metadata must be a mapping"], []

    errors = []
    for key in LISTS_OF_STRINGS:
        values = metadata.get(key, [])
        values = [values] if isinstance(values, str) else values
        if not isinstance(values, list) or not all(isinstance(value, str) and value for value in values):
            errors.append(f'"{key}" must be a string or a list of strings')
    for key in ("license", "library_name", "pipeline_tag"):
        if not isinstance(metadata.get(key, ""), str):
            errors.append(f'"{key}" must be a string')
    for key in ("datasets", "base_model"):
        values = metadata.get(key, [])
        for value in [values] if isinstance(values, str) else values:
            if not REPO_ID.match(str(value)):
                errors.append(f'"{key}" must hold ids of the Hub, not {value!r}')
    if "model-index" in metadata:
        errors += _model_index_problems(metadata["model-index"])
    return errors, []


def _model_index_problems(model_index: object) -> list[str]:
    if not isinstance(model_index, list) or not all(isinstance(model, dict) for model in model_index):
        return ['"model-index" must be a list of models']
    errors = []
    for i, model in enumerate(model_index):
        if not isinstance(model.get("name"), str):
            errors.append(f'"model-index[{i}].name" must be a string')
        if not isinstance(model.get("results"), list):
            errors.append(f'"model-index[{i}].results" must be a list')
            continue
        for j, result in enumerate(model["results"]):
            where = f"model-index[{i}].results[{j}]"
            for part, key in REQUIRED_IN_RESULT:
                if not isinstance((result.get(part) or {}).get(key), str):
                    errors.append(f'"{where}.{part}.{key}" must be a string')
            if not REPO_ID.match(str((result.get("dataset") or {}).get("type", ""))):
                errors.append(f'"{where}.dataset.type" must be the id of a dataset')
            metrics = result.get("metrics")
            if not isinstance(metrics, list) or not metrics:
                errors.append(f'"{where}.metrics" must be a list that is not empty')
                continue
            for k, metric in enumerate(metrics):
                if not isinstance(metric.get("type"), str):
                    errors.append(f'"{where}.metrics[{k}].type" must be a string')
                if not isinstance(metric.get("value"), (int, float, str, dict, list)):
                    errors.append(f'"{where}.metrics[{k}].value" is required')
    return errors


def section(text: str, heading: str) -> str:
    """What stands under `## heading`."""
    return text.split(f"## {heading}\n\n")[1].split("\n## ")[0]
