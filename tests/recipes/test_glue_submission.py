"""Predictions, and the files that gluebenchmark.com takes."""

import numpy as np
import pytest
from glue_tasks import TASKS


EXPECTED = {
    "cola": {"test": "CoLA.tsv"},
    "sst2": {"test": "SST-2.tsv"},
    "mrpc": {"test": "MRPC.tsv"},
    "stsb": {"test": "STS-B.tsv"},
    "qqp": {"test": "QQP.tsv"},
    "mnli": {"test_matched": "MNLI-m.tsv", "test_mismatched": "MNLI-mm.tsv"},
    "qnli": {"test": "QNLI.tsv"},
    "rte": {"test": "RTE.tsv"},
    "wnli": {"test": "WNLI.tsv"},
}
WORDS = {
    "mnli": ["entailment", "neutral", "contradiction"],
    "qnli": ["entailment", "not_entailment"],
    "rte": ["entailment", "not_entailment"],
}


def test_the_files_have_their_official_names():
    assert {name: task.test_splits for name, task in TASKS.items()} == EXPECTED


@pytest.mark.parametrize("name", [name for name in TASKS if name != "stsb"])
def test_classes_are_written_as_the_server_wants_them(name, tmp_path):
    task = TASKS[name]
    logits = np.eye(task.num_labels)[[0, 1, task.num_labels - 1, 0]]
    task.write_submission(tmp_path / "file.tsv", task.predict(logits))
    indices = [0, 1, task.num_labels - 1, 0]
    written = [WORDS[name][index] if name in WORDS else str(index) for index in indices]
    expected = "index\tprediction\n" + "".join(f"{i}\t{value}\n" for i, value in enumerate(written))
    assert (tmp_path / "file.tsv").read_text() == expected


def test_scores_are_clipped_to_the_scale_and_written_with_three_digits(tmp_path):
    task = TASKS["stsb"]
    predictions = task.predict(np.array([[-0.5], [0.0], [2.34567], [5.5]], dtype=np.float32))
    np.testing.assert_array_equal(predictions, np.array([0.0, 0.0, 2.34567, 5.0], dtype=np.float32))
    task.write_submission(tmp_path / "STS-B.tsv", predictions)
    assert (tmp_path / "STS-B.tsv").read_text() == "index\tprediction\n0\t0.000\n1\t0.000\n2\t2.346\n3\t5.000\n"


def test_models_that_return_more_than_logits_are_read_too():
    logits = np.array([[0.1, 0.9], [0.8, 0.2]])
    np.testing.assert_array_equal(TASKS["rte"].predict((logits, np.zeros((2, 5)))), [1, 0])
