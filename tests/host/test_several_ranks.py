"""What hosts do by themselves on several ranks: exchanges in the loss, batches of their own, stopping early."""

import pytest

from tests.host import setups
from tests.host.trainers import OrderOfEpoch


@pytest.mark.parametrize("method", ["sam", "sampa"])
def test_windows_of_different_length_with_an_exchange_in_the_loss_end_together(method, on_two_ranks, on_one_process):
    """The partners of a pair are at windows of 4, 4 and 2 micro-batches: the shorter one is filled up."""
    results = on_two_ranks[f"collective-{method}"]
    for result in results:
        setups.assert_same_weights(result, results[0], tolerance=1e-15)
    if method == "sampa":
        setups.assert_same_weights(results[0], on_one_process("collective-sampa"), tolerance=1e-9)
        setups.assert_same_losses(results[0], on_one_process("collective-sampa"))


def test_batches_of_a_hosts_own_are_those_of_each_epoch_on_two_pairs(on_four_ranks):
    """`set_epoch` reaches the sampler that accelerate has dealt to shards, also where windows are read ahead."""
    results = on_four_ranks["own-batches"]
    sampler, expected = OrderOfEpoch(24), []
    for epoch in range(4):
        sampler.set_epoch(epoch)
        expected.append(list(sampler))
    assert expected[0] != expected[1] != expected[2]
    for rank, result in enumerate(results):
        shard = [batch for epoch in expected for batch in epoch[rank // 2 :: 2]]
        # h_0 sees the first window. Then the even rank works on W_t, the odd one on W_{t+1}.
        ahead = rank % 2
        assert result["rows"] == [shard[0], *shard[ahead : 18 + ahead]]
        assert result["steps"] == 18
        assert result["even_batches"] is False


@pytest.mark.parametrize("name", ["sam-global", "sampa"])
def test_stopping_early_leaves_the_best_model_on_all_ranks(name, on_two_ranks, on_one_process):
    alone, results = on_one_process(f"stopped-early-{name}"), on_two_ranks[f"stopped-early-{name}"]
    for result in results:
        assert result["steps"] == alone["steps"] < 24
        assert result["best_step"] == alone["best_step"] == alone["steps"] - 2
        assert result["final"] == pytest.approx(min(result["eval_losses"]), abs=1e-9)
        setups.assert_same_weights(result, alone, tolerance=1e-7)
