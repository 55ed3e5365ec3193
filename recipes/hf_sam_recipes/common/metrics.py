"""A metric of the Hub where the Hub answers, else our own with the same keys and the same numbers."""

import uuid

import evaluate
import requests
from huggingface_hub import constants, hf_hub_download, hf_hub_url
from transformers.utils import logging


logger = logging.get_logger(__name__)

REACH_TIMEOUT = 5.0  # seconds


def load_metric(name: str, fallback: type[evaluate.Metric], config_name: str | None = None) -> evaluate.Metric:
    """
    The Hub's metric `evaluate-metric/<name>`, from the Hub or from the cache of an earlier download, else `fallback`.

    `evaluate.load` knows nothing of `HF_HUB_OFFLINE` and may wait for minutes on a network that swallows packets, and
    `hf_hub_download` retries for 23 seconds. So the Hub is asked once, for at most 5 seconds, and not at all when
    `HF_HUB_OFFLINE` or `HF_EVALUATE_OFFLINE` is set. Every rank may call this; a rank that falls back while another
    does not still computes the same numbers.

    Args:
        name (`str`):
            Name of the metric, for example `"glue"`.
        fallback (`type[evaluate.Metric]`):
            Class to use without the Hub. Must return what the Hub's metric returns.
        config_name (`str`, *optional*):
            Configuration of the metric, for GLUE the task.
    """
    # A name of its own for the temporary file of each process, or ranks would wait for each other's lock.
    options = {"config_name": config_name, "experiment_id": uuid.uuid4().hex}
    try:
        script = _hub_script(name)
    except OSError:
        logger.warning_once(
            f"The Hub's metric 'evaluate-metric/{name}' cannot be reached and is not in the cache: "
            f"{fallback.__name__} computes the same numbers."
        )
        return fallback(**options)
    return evaluate.load(script, **options)


def _hub_script(name: str) -> str:
    file = {"repo_id": f"evaluate-metric/{name}", "filename": f"{name}.py", "repo_type": "space"}
    offline = constants.HF_HUB_OFFLINE or evaluate.config.HF_EVALUATE_OFFLINE
    return hf_hub_download(**file, local_files_only=offline or not _answers(hf_hub_url(**file)))


def _answers(url: str) -> bool:
    # With requests, as evaluate itself does: huggingface_hub's own HTTP library changes with its major versions.
    try:
        return requests.head(url, timeout=REACH_TIMEOUT, allow_redirects=True).ok
    except requests.RequestException:
        return False
