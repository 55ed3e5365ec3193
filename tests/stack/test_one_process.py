"""Every host on one process: without a radius it is the stock class bit for bit, with one it is the reference."""

from functools import cache

import pytest

from tests.stack import cells
from tests.stack.hosts import HERE, HOSTS


@pytest.fixture(scope="module")
def result_of(tmp_path_factory):
    """`result_of(run, host)` runs it, once."""

    @cache
    def result(run, host):
        return cells.RUNS[run](host, tmp_path_factory.mktemp("host"))

    return result


def refuse(run, host, result_of):
    method = run.split(",")[0]
    if cells.is_refused(host, method, 1):
        with pytest.raises(ValueError, match=HOSTS[host].refused[method, 1]):
            result_of(run, host)
        pytest.skip("refused by name")


@pytest.mark.parametrize("host", HERE)
def test_sam_without_a_radius_is_the_stock_class_and_logs_the_same(host, result_of):
    stock, ours = result_of("stock", host), result_of("sam, ρ = 0", host)
    assert stock["steps"] == ours["steps"] >= 6
    assert cells.same_bits(stock, ours)
    assert ours["log"] == stock["log"]


@pytest.mark.parametrize("host", HERE)
def test_sampa_without_a_radius_and_lambda_is_the_stock_class(host, result_of):
    refuse("sampa, ρ = λ = 0", host, result_of)
    assert cells.same_bits(result_of("stock", host), result_of("sampa, ρ = λ = 0", host))


@pytest.mark.parametrize("method", ["sam", "sampa"])
@pytest.mark.parametrize("host", HERE)
def test_equals_the_independent_reference(host, method, result_of):
    refuse(f"{method}, short", host, result_of)
    expected, ours = result_of(cells.REFERENCES[method], host), result_of(f"{method}, short", host)
    assert expected["steps"] == ours["steps"] >= 6
    assert cells.largest_difference(ours, expected) < 3e-6
    if method == "sam":
        for entry, other in zip(ours["log"], expected["log"], strict=True):
            assert entry == pytest.approx(other, rel=1e-3, abs=1e-4)
