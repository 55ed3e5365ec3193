"""Which evaluation a card shows, and under which names."""

from huggingface_hub import EvalResult

from hf_sam.hub.card_results import card_history, hub_eval_results


LOG = [
    {"loss": 1.0, "step": 1},
    {"eval_loss": 0.9, "eval_accuracy": 0.7, "step": 1},
    {"eval_loss": 0.8, "eval_accuracy": 0.6, "step": 2},
]


def test_card_shows_the_evaluation_of_the_weights_it_comes_with():
    end = {"train_runtime": 1.0, "step": 2}
    assert card_history([*LOG, end])[-1]["eval_accuracy"] == 0.6
    assert card_history([*LOG, end], best_step=1)[-1]["eval_accuracy"] == 0.7
    # In the middle of training the best weights are not loaded yet.
    assert card_history(LOG, best_step=1)[-1]["eval_accuracy"] == 0.6
    # An evaluation after training is that of the weights in hand, whatever was best.
    after = [{"eval_accuracy": 0.5, "step": 2}, {"eval_mm_accuracy": 0.4, "step": 2}]
    last = card_history([*LOG, end, *after], best_step=1)[-1]
    assert (last["eval_accuracy"], last["eval_mm_accuracy"]) == (0.5, 0.4)
    assert card_history([]) == [{"train_runtime": None}]


TEMPLATE = EvalResult(
    task_type="text-classification",
    dataset_type="nyu-mll/glue",
    dataset_name="GLUE",
    metric_type="f1",
    metric_value=0.0,
)


def test_metrics_are_named_as_the_hub_names_them():
    last = {"eval_pearson": 0.8, "eval_spearmanr": 0.7, "eval_combined_score": 0.75}
    results = hub_eval_results(TEMPLATE, [last | {"eval_mm_accuracy": 0.4, "eval_mm_loss": 1.0}])
    assert [(r.dataset_name, r.dataset_split, r.metric_type, r.metric_value) for r in results] == [
        ("GLUE", None, "pearsonr", 0.8),
        ("GLUE", None, "spearmanr", 0.7),
        ("GLUE (mm)", "mm", "accuracy", 0.4),
    ]


def test_a_prefix_names_an_evaluation_set_only_where_that_set_has_a_loss():
    last = {"eval_loss": 1.0, "eval_accuracy": 0.5, "eval_balanced_accuracy": 0.3, "eval_top5_accuracy": 0.9}
    results = hub_eval_results(TEMPLATE, [last])
    assert [(r.dataset_name, r.dataset_split, r.metric_type, r.metric_name, r.metric_value) for r in results] == [
        ("GLUE", None, "accuracy", "Accuracy", 0.5),
        ("GLUE", None, "accuracy", "Top-5 Accuracy", 0.9),
    ]
    results = hub_eval_results(TEMPLATE, [last | {"eval_balanced_loss": 2.0, "eval_balanced_top5_accuracy": 0.8}])
    assert [(r.dataset_name, r.dataset_split, r.metric_name, r.metric_value) for r in results] == [
        ("GLUE", None, "Accuracy", 0.5),
        ("GLUE (balanced)", "balanced", "Accuracy", 0.3),
        ("GLUE", None, "Top-5 Accuracy", 0.9),
        ("GLUE (balanced)", "balanced", "Top-5 Accuracy", 0.8),
    ]
