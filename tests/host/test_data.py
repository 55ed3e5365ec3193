"""SAMPa's data: both ranks of a pair read the same rows in every epoch, and pairs share the rows out."""

import pytest

from tests.host import setups
from tests.host.cases import DATA, DATA_BATCH, DATA_EPOCHS, DATA_ROWS


SIZED = [name for name in DATA if not name.startswith("streamed")]


def windows(outcome, accumulation, ahead=0):
    """
    A list over windows of the rows in them. The window of h_0 comes first; after it, reading begins at `ahead`. Where
    the partner's window is longer, passes that fill up come before.
    """
    per_epoch = -(-DATA_ROWS // DATA_BATCH)
    ends = [i for i in range(1, per_epoch + 1) if i % accumulation == 0 or i == per_epoch]
    sizes = [end - start for start, end in zip([0, *ends], ends, strict=False)] * (DATA_EPOCHS + 1)
    rows, out = list(outcome["rows"]), []
    own, partner = [sizes[0], *sizes[ahead:]], [sizes[0], *sizes[1 - ahead :]]
    for size, other in zip(own, partner, strict=False):
        filled_up = max(0, other - size)
        assert rows[:filled_up] == rows[filled_up : filled_up + 1] * len(rows[:filled_up])
        rows = rows[filled_up:]
        if rows:
            out.append([row for micro_batch in rows[:size] for row in micro_batch])
            rows = rows[size:]
    return out


@pytest.mark.parametrize("setting", DATA)
def test_both_ranks_of_a_pair_read_the_same_rows(setting, on_two_ranks):
    """PERTURBED reads W_0 for h_0, then W_0, W_1, ...; LOOKAHEAD W_0, then W_1, W_2, ..."""
    perturbed, lookahead = on_two_ranks[f"data-{setting}"]
    if setting == "accumulated":
        left, right = windows(perturbed, 3), windows(lookahead, 3, ahead=1)
    else:
        left, right = perturbed["rows"], lookahead["rows"]
        # What the rows say too, augmented or not: PERTURBED's W_t is LOOKAHEAD's of the update before.
        assert perturbed["checksums"][0] == perturbed["checksums"][1] == lookahead["checksums"][0]
        ahead = lookahead["checksums"][1:]
        assert perturbed["checksums"][2 : 1 + len(ahead)] == ahead[: len(perturbed["checksums"]) - 2]
    assert left[0] == left[1] == right[0]
    assert left[2:] == right[1 : len(left) - 1]
    assert len(left) == perturbed["steps"] + 1


@pytest.mark.parametrize("setting", DATA)
def test_two_ranks_equal_one_process(setting, on_one_process, on_two_ranks):
    name = f"data-{setting}"
    alone = on_one_process(name)
    for rank in on_two_ranks[name]:
        if setting != "evaluated":  # It has dropout, whose masks may differ.
            setups.assert_same_weights(rank, alone)
        for key in ("steps", "epoch", "tokens", "total_batch"):
            assert rank[key] == alone[key], key


@pytest.mark.parametrize("setting", [name for name in SIZED if name not in ("accumulated", "dropped")])
def test_every_epoch_holds_all_rows_in_another_order(setting, on_two_ranks):
    rows = [row for micro_batch in on_two_ranks[f"data-{setting}"][0]["rows"][1:] for row in micro_batch]
    epochs = [rows[start : start + DATA_ROWS] for start in range(0, len(rows), DATA_ROWS)]
    assert len(epochs) == DATA_EPOCHS
    assert all(sorted(epoch) == list(range(DATA_ROWS)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_augmented_rows_are_drawn_anew_in_every_epoch(on_two_ranks):
    for setting in ("augmented", "augmented-by-workers"):
        outcome = on_two_ranks[f"data-{setting}"][0]
        plain = on_two_ranks["data-shuffled"][0]
        assert outcome["rows"] == plain["rows"]
        assert sum(a != b for a, b in zip(outcome["checksums"], plain["checksums"], strict=True)) >= 20


def test_a_stream_goes_on_across_its_end_or_ends(on_two_ranks):
    going_on, ending = on_two_ranks["data-streamed"][0], on_two_ranks["data-streamed-once"][0]
    assert going_on["steps"] == 11
    assert ending["steps"] == -(-DATA_ROWS // DATA_BATCH)
    rows = [row for micro_batch in going_on["rows"][1:] for row in micro_batch]
    assert rows == [*range(DATA_ROWS), *range(len(rows) - DATA_ROWS)]


def test_batches_that_are_not_full_are_dropped(on_two_ranks):
    outcome = on_two_ranks["data-dropped"][0]
    assert {len(micro_batch) for micro_batch in outcome["rows"]} == {DATA_BATCH}
    assert outcome["steps"] == DATA_EPOCHS * (DATA_ROWS // DATA_BATCH)


def test_grouped_batches_are_sorted_by_length(on_two_ranks):
    """All but one of an epoch, where the host puts the first row of the batch that has the longest row of all."""
    lengths = [len(row["input_ids"]) for row in setups.sentences(DATA_ROWS)]

    def sorted_batches(setting):
        batches = [[lengths[i] for i in batch] for batch in on_two_ranks[f"data-{setting}"][0]["rows"]]
        return sum(batch == sorted(batch, reverse=True) for batch in batches)

    assert sorted_batches("grouped") >= 25 - 4
    assert sorted_batches("shuffled") < 25 / 2


@pytest.mark.parametrize("setting", ["shuffled", "augmented-by-workers"])
def test_two_pairs_share_the_rows_out(setting, on_four_ranks):
    ranks = on_four_ranks[f"data-{setting}"]
    per_epoch = -(-DATA_ROWS // DATA_BATCH // 2)
    for pair in (0, 1):
        perturbed, lookahead = ranks[2 * pair], ranks[2 * pair + 1]
        assert perturbed["rows"][2:] == lookahead["rows"][1:-1]
        assert perturbed["checksums"][2:] == lookahead["checksums"][1:-1]
    for epoch in range(DATA_EPOCHS):
        own = slice(1 + epoch * per_epoch, 1 + (epoch + 1) * per_epoch)
        shards = [{row for batch in ranks[rank]["rows"][own] for row in batch} for rank in (0, 2)]
        assert shards[0] | shards[1] == set(range(DATA_ROWS))
        # The last batch of one shard is filled up with rows of the beginning, as the host does it.
        assert len(shards[0] & shards[1]) <= 2 * DATA_BATCH * per_epoch - DATA_ROWS


def test_workers_of_two_pairs_draw_different_augmentations(on_four_ranks):
    first, second = on_four_ranks["data-augmented-by-workers"][0], on_four_ranks["data-augmented-by-workers"][2]
    assert first["checksums"] != second["checksums"]


def test_two_pairs_share_a_stream_out(on_four_ranks):
    ranks = on_four_ranks["data-streamed"]
    for pair in (0, 1):
        assert ranks[2 * pair]["rows"][2:] == ranks[2 * pair + 1]["rows"][1:-1]
    own = [{row for batch in ranks[rank]["rows"][1:4] for row in batch} for rank in (0, 2)]
    assert own[0] | own[1] == set(range(24))
    assert not own[0] & own[1]
