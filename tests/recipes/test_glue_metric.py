"""The metrics agree with scikit-learn and SciPy, and the Hub is asked once, briefly, or not at all."""

from pathlib import Path

import evaluate
import numpy as np
import pytest
import requests
from scipy import stats
from sklearn import metrics as sklearn_metrics

from hf_sam_recipes.common import metrics
from hf_sam_recipes.glue.metric import GlueMetric

from . import made_glue


def reference(task, predictions, labels):
    if task == "cola":
        return {"matthews_correlation": sklearn_metrics.matthews_corrcoef(labels, predictions)}
    if task == "stsb":
        return {
            "pearson": stats.pearsonr(labels, predictions).statistic,
            "spearmanr": stats.spearmanr(labels, predictions).statistic,
        }
    result = {"accuracy": sklearn_metrics.accuracy_score(labels, predictions)}
    if task in ("mrpc", "qqp"):
        result["f1"] = sklearn_metrics.f1_score(labels, predictions)
    return result


@pytest.mark.parametrize("task", made_glue.TASKS)
def test_metrics_agree_with_scikit_learn_and_scipy(task):
    rng = np.random.default_rng(made_glue.TASKS.index(task))
    if task == "stsb":
        labels = rng.choice(np.arange(0, 5.25, 0.25), size=500)
        predictions = np.clip(labels + rng.normal(size=500), 0, 5)
    else:
        classes = 3 if task == "mnli" else 2
        labels = rng.integers(classes, size=500)
        predictions = np.where(rng.random(500) < 0.7, labels, rng.integers(classes, size=500))
    computed = GlueMetric(config_name=task).compute(predictions=predictions, references=labels)
    expected = reference(task, predictions, labels)
    assert computed.keys() == expected.keys()
    for key, value in expected.items():
        # The scores of STS-B pass through float32, in the Hub's metric too.
        assert computed[key] == pytest.approx(value, abs=1e-6 if task == "stsb" else 1e-12), key


def test_the_script_of_the_hub_is_used_where_there_is_one(monkeypatch):
    monkeypatch.setattr(metrics, "_hub_script", lambda name: str(Path(__file__).with_name("hub_glue.py")))
    metric = metrics.load_metric("glue", fallback=GlueMetric, config_name="rte")
    result = metric.compute(predictions=[1, 0, 1, 1], references=[1, 1, 1, 1])
    assert result == {"accuracy": 0.75, "from_hub": "rte"}


class Requests:
    """Counts what would go over the network, and fails like a machine without one."""

    def __init__(self):
        self.timeouts = []

    def head(self, url, timeout, **_):
        assert url.endswith("/spaces/evaluate-metric/glue/resolve/main/glue.py")
        self.timeouts.append(timeout)
        raise requests.ConnectTimeout("no network in tests")


@pytest.fixture
def network(monkeypatch):
    network = Requests()
    monkeypatch.setattr(metrics.requests, "head", network.head)
    return network


@pytest.mark.parametrize(("hub", "library"), [(True, False), (False, True)])
def test_offline_means_that_nothing_is_asked(network, monkeypatch, hub, library):
    monkeypatch.setattr(metrics.constants, "HF_HUB_OFFLINE", hub)
    monkeypatch.setattr(evaluate.config, "HF_EVALUATE_OFFLINE", library)
    metric = metrics.load_metric("glue", fallback=GlueMetric, config_name="mrpc")
    assert network.timeouts == []
    assert metric.compute(predictions=[1, 1, 0, 1], references=[1, 0, 0, 1]) == {"accuracy": 0.75, "f1": 0.8}


def test_an_unreachable_hub_is_asked_once_and_briefly(network, monkeypatch):
    monkeypatch.setattr(metrics.constants, "HF_HUB_OFFLINE", False)
    metric = metrics.load_metric("glue", fallback=GlueMetric, config_name="cola")
    assert network.timeouts == [5.0]
    assert isinstance(metric, GlueMetric)


def test_two_metrics_of_one_task_do_not_share_a_file():
    first, second = (metrics.load_metric("glue", fallback=GlueMetric, config_name="rte") for _ in range(2))
    first.add_batch(predictions=[1, 1], references=[1, 1])
    second.add_batch(predictions=[0, 0, 0], references=[1, 1, 1])
    assert first.compute() == {"accuracy": 1.0}
    assert second.compute() == {"accuracy": 0.0}
