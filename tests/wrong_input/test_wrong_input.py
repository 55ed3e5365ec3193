"""Every input of the table ends before training with one clear error, status 2, and nothing left behind."""

from collections import Counter

import pytest

from .table import Case, attempt, cases, summary, write_places


CASES = cases()
COUNTS: Counter = Counter()


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    yield write_places(tmp_path_factory.mktemp("places"))
    print(f"\nwrong inputs\n{summary(COUNTS)}")


@pytest.mark.parametrize("case", CASES, ids=[f"{number} {case.name}" for number, case in enumerate(CASES)])
def test_a_wrong_input_is_told_clearly(case: Case, places, tmp_path):
    verdict = attempt(case, places, tmp_path).verdict(case)
    COUNTS[case.kind, verdict.partition(":")[0]] += 1
    assert verdict == "clear"


def test_the_table_is_long_enough():
    assert len(CASES) >= 200
    assert {case.kind for case in CASES} >= {"command line", "YAML", "data", "images", "model", "study file", "record"}
