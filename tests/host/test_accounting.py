"""What training reports of itself: flops as computed, rows and tokens as seen."""

import pytest

from tests.host import setups
from tests.host.cases import DATA, DATA_BATCH, DATA_EPOCHS, DATA_ROWS


TOKENS = sum(len(row["input_ids"]) for row in setups.sentences(DATA_ROWS))


def samples_seen(outcome):
    return outcome["metrics"]["train_samples_per_second"] * outcome["metrics"]["train_runtime"]


def test_sam_computes_twice_the_flops_of_the_stock_trainer(on_one_process, on_two_ranks, on_four_ranks):
    places = [on_one_process, lambda name: on_two_ranks[name][0], lambda name: on_four_ranks[name][0]]
    for outcome_of in places:
        sam, stock = outcome_of("accounting-sam"), outcome_of("accounting-stock")
        assert sam["total_flos"] == 2 * stock["total_flos"] > 0
        assert sam["tokens"] == stock["tokens"] > 0
        assert sam["total_batch"] == stock["total_batch"]


@pytest.mark.parametrize("setting", list(DATA))
def test_sampa_counts_the_flops_of_what_it_computes(setting, on_one_process, on_two_ranks):
    """Two gradients for each update and one for h_0, which both ranks of a pair compute."""
    parameters = setups.classifier().num_parameters(exclude_embeddings=True)
    name = f"data-{setting}"
    for ranks in ([on_one_process(name)], on_two_ranks[name]):
        computed = sum(sum(rank["sizes"]) for rank in ranks)
        assert {rank["total_flos"] for rank in ranks} == {6 * parameters * computed}


def test_sampa_computes_little_more_than_twice_the_flops_of_the_stock_trainer(on_one_process, on_two_ranks):
    stock = on_one_process("accounting-stock")["total_flos"]
    alone, both = on_one_process("data-shuffled"), on_two_ranks["data-shuffled"][0]
    first = both["total_flos"] - alone["total_flos"]
    assert 2 * stock < alone["total_flos"] < both["total_flos"]
    assert first == pytest.approx(stock / alone["steps"], rel=0.2)
    assert both["total_flos"] == pytest.approx(2 * stock + 2 * first, rel=0.01)


def test_pairs_count_their_shards(on_one_process, on_two_ranks, on_four_ranks):
    alone, two, four = (
        on_one_process("data-shuffled"),
        *(place["data-shuffled"][0] for place in (on_two_ranks, on_four_ranks)),
    )
    assert [run["total_batch"] for run in (alone, two, four)] == [DATA_BATCH, DATA_BATCH, 2 * DATA_BATCH]
    assert [run["steps"] for run in (alone, two, four)] == [24, 24, 12]
    assert alone["epoch"] == two["epoch"] == four["epoch"] == DATA_EPOCHS
    assert alone["tokens"] == two["tokens"] == DATA_EPOCHS * TOKENS
    # Two rows are seen twice in an epoch, to fill up the last batch of the second shard.
    assert DATA_EPOCHS * TOKENS < four["tokens"] < DATA_EPOCHS * TOKENS * 32 / 30 * 1.05
    for run in (alone, two):
        assert samples_seen(run) == pytest.approx(DATA_EPOCHS * DATA_ROWS, rel=0.01)
    assert samples_seen(four) == pytest.approx(DATA_EPOCHS * DATA_ROWS, rel=0.07)


def test_four_ranks_of_sampa_see_what_two_of_the_stock_trainer_see(on_two_ranks, on_four_ranks):
    """The same shards, so the same counts (another order of rows, so tokens differ by those seen twice)."""
    sampa, stock = on_four_ranks["data-shuffled"][0], on_two_ranks["accounting-stock"][0]
    for key in ("steps", "epoch", "total_batch"):
        assert sampa[key] == stock[key], key
    assert samples_seen(sampa) == pytest.approx(samples_seen(stock), rel=0.01)
