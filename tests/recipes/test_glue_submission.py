"""Predictions, and the files that gluebenchmark.com takes."""

import numpy as np
import pytest

from hf_sam_recipes.glue import tasks as glue_tasks
from hf_sam_recipes.glue.tasks import TASKS


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
# As gluebenchmark.com has them.
OFFICIAL_SIZES = {
    "CoLA.tsv": 1063,
    "SST-2.tsv": 1821,
    "MRPC.tsv": 1725,
    "STS-B.tsv": 1379,
    "QQP.tsv": 390965,
    "MNLI-m.tsv": 9796,
    "MNLI-mm.tsv": 9847,
    "QNLI.tsv": 5463,
    "RTE.tsv": 3000,
    "WNLI.tsv": 146,
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
    task, file = TASKS[name], next(iter(EXPECTED[name].values()))
    logits = np.eye(task.num_labels)[[0, 1, task.num_labels - 1, 0]]
    task.write_submission(tmp_path / file, task.predict(logits))
    indices = [0, 1, task.num_labels - 1, 0]
    written = [WORDS[name][index] if name in WORDS else str(index) for index in indices]
    expected = "index\tprediction\n" + "".join(f"{i}\t{value}\n" for i, value in enumerate(written))
    assert (tmp_path / file).read_text() == expected


def test_scores_are_clipped_to_the_scale_and_written_with_three_digits(tmp_path):
    task = TASKS["stsb"]
    predictions = task.predict(np.array([[-0.5], [0.0], [2.34567], [5.5]], dtype=np.float32))
    np.testing.assert_array_equal(predictions, np.array([0.0, 0.0, 2.34567, 5.0], dtype=np.float32))
    task.write_submission(tmp_path / "STS-B.tsv", predictions)
    assert (tmp_path / "STS-B.tsv").read_text() == "index\tprediction\n0\t0.000\n1\t0.000\n2\t2.346\n3\t5.000\n"


@pytest.mark.parametrize(("name", "file"), [(name, file) for name in EXPECTED for file in EXPECTED[name].values()])
def test_a_file_of_another_length_than_the_official_one_is_named(name, file, tmp_path, monkeypatch):
    warnings = []
    monkeypatch.setattr(glue_tasks.logger, "warning", warnings.append)
    size = OFFICIAL_SIZES[file]
    TASKS[name].write_submission(tmp_path / file, np.zeros(size, dtype=int))
    assert len((tmp_path / file).read_text().splitlines()) == size + 1
    assert warnings == []
    TASKS[name].write_submission(tmp_path / file, np.zeros(size - 1, dtype=int))
    assert warnings == [f"{tmp_path / file}: {size - 1} predictions, but a submission needs {size}."]


def test_models_that_return_more_than_logits_are_read_too():
    logits = np.array([[0.1, 0.9], [0.8, 0.2]])
    np.testing.assert_array_equal(TASKS["rte"].predict((logits, np.zeros((2, 5)))), [1, 0])
