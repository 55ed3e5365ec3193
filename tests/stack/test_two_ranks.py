"""Every host on two ranks: all that holds on one process, and a pair of SAMPa has the numbers of one process."""

import re

import pytest

from tests.stack import cells
from tests.stack.hosts import HERE, HOSTS


@pytest.mark.parametrize("host", HERE)
def test_sam_without_a_radius_is_the_stock_class_and_logs_the_same(host, on_two_ranks):
    for stock, ours in zip(on_two_ranks[f"stock | {host}"], on_two_ranks[f"sam, ρ = 0 | {host}"], strict=True):
        assert cells.same_bits(stock, ours)
        assert ours["log"] == stock["log"]
        assert ours["steps"] >= 3


@pytest.mark.parametrize("host", HERE)
def test_sam_equals_the_independent_reference(host, on_two_ranks):
    for ours, expected in zip(on_two_ranks[f"sam, short | {host}"], on_two_ranks[f"two-pass | {host}"], strict=True):
        assert cells.largest_difference(ours, expected) < 3e-6
        for entry, other in zip(ours["log"], expected["log"], strict=True):
            assert entry == pytest.approx(other, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("host", HERE)
def test_a_pair_has_the_numbers_of_one_process(host, on_two_ranks, tmp_path):
    """The windows of a pair differ in length: 4, 4 and 2 micro-batches. Rank 0 logs what its partner has seen."""
    pair = on_two_ranks[f"sampa | {host}"]
    if cells.is_refused(host, "sampa", 2):
        for rank in pair:
            assert re.search(HOSTS[host].refused["sampa", 2], rank["error"])
        return
    alone = cells.RUNS["sampa"](host, tmp_path)
    for rank in pair:
        assert rank["steps"] == alone["steps"] == 6
        assert cells.largest_difference(rank, alone) < 3e-6
    assert cells.same_bits(*pair)
    # An evaluation is the host's own on two ranks, where it multiplies the loss of some models by the ranks.
    ours, theirs = ([entry for entry in run["log"] if "eval_loss" not in entry] for run in (pair[0], alone))
    for entry, other in zip(ours, theirs, strict=True):
        assert entry == pytest.approx(other, rel=1e-3, abs=1e-4)
