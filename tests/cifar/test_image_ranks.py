"""Several processes: every rank sees the pixels that it should, and two ranks compute what one does."""

import pytest
import torch

from tests.distributed.launch import launch

from . import runs
from .test_batch_norm import check_statistics
from .test_image_examples import seen_by, windows


WORKERS = {"dataloader_num_workers": 2}
CUT = {"save_strategy": "steps", "save_steps": 8, "dataloader_num_workers": 1}
PER_SHARD = runs.UPDATES_PER_EPOCH // 2 + 1


@pytest.fixture(scope="module")
def runs_on_two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two-ranks")
    wanted = {
        "sampa": runs.Run("sampa", arguments=WORKERS),
        "sampa-resnet": runs.Run("sampa", model="resnet"),
        "sam-resnet": runs.Run("sam", model="resnet"),
        "adamw-resnet": runs.Run("none", model="resnet"),
        "sam-whole": runs.Run("sam", arguments=CUT),
        "sam@cut": runs.Run("sam", arguments=CUT, stop=8),
        "sam@resumed": runs.Run("sam", arguments=CUT, resume_from=str(folder / "sam" / "checkpoint-8")),
    }
    return launch(2, wanted, folder, module="tests.cifar.runs")


def same_bits(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def largest_difference(left, right):
    return max(float((left[name] - right[name]).abs().max()) for name in left)


def test_both_ranks_of_a_pair_see_the_same_pixels(runs_on_two):
    """The first window together; then each update's window on rank 0, and at the same time the next one on rank 1."""
    perturbed, lookahead = runs_on_two["sampa"]
    stream, updates = windows(4), 3 * runs.UPDATES_PER_EPOCH
    assert perturbed["updates"] == lookahead["updates"] == updates
    assert perturbed["batches"] == [stream[0], *stream[:updates]]
    assert lookahead["batches"] == stream[: updates + 1]


@pytest.mark.parametrize(("name", "model"), [("sampa", "vit"), ("sampa-resnet", "resnet")])
def test_sampa_on_two_ranks_equals_one_process(name, model, runs_on_two, tmp_path):
    alone = runs.train(runs.Run("sampa", model=model, arguments=WORKERS), tmp_path)
    first, second = runs_on_two[name]
    assert same_bits(first["weights"], second["weights"])
    assert largest_difference(first["weights"], alone["weights"]) < 1e-5
    assert first["evaluation"]["eval_loss"] == pytest.approx(alone["evaluation"]["eval_loss"], abs=1e-5)

    torch.manual_seed(3)
    start = {name: p.detach() for name, p in runs.made_cifar.make_model(model).named_parameters()}
    assert largest_difference(start, alone["weights"]) > 1e-2


def test_running_statistics_on_two_ranks_follow_the_lookahead_rank(runs_on_two):
    _, lookahead = runs_on_two["sampa-resnet"]
    for result in runs_on_two["sampa-resnet"]:
        check_statistics(result, slice(1, None), lookahead["inputs"])


@pytest.mark.parametrize("name", ["sampa-resnet", "sam-resnet", "adamw-resnet"])
def test_every_rank_s_own_model_evaluates_the_same(name, runs_on_two):
    first, second = runs_on_two[name]
    assert torch.equal(first["logits"], second["logits"])
    assert first["evaluation"]["eval_loss"] == second["evaluation"]["eval_loss"]


@pytest.mark.parametrize("name", ["sampa-resnet", "sam-resnet"])
def test_running_statistics_are_the_same_on_both_ranks_after_training(name, runs_on_two):
    first, second = runs_on_two[name]
    assert same_bits(first["weights"], second["weights"])


def test_ddp_leaves_the_ranks_of_adamw_with_statistics_of_their_own(runs_on_two):
    """What the evaluation has to make good, and does on rank 0's terms, whose model is saved."""
    first, second = runs_on_two["adamw-resnet"]
    assert not same_bits(first["weights"], second["weights"])


def test_shards_see_different_parts_of_the_same_epochs(runs_on_two):
    for rank, result in enumerate(runs_on_two["sam-whole"]):
        # 11 batches for two ranks: the last one of rank 1 is the epoch's first again.
        first_epoch = (windows(1, 2, rank) + windows(1)[:1])[:PER_SHARD]
        assert result["updates"] == 3 * PER_SHARD
        assert result["batches"][: 2 * PER_SHARD] == seen_by("sam", first_epoch, PER_SHARD)


def test_a_run_resumed_on_shards_goes_on_with_the_same_pixels(runs_on_two):
    for whole, resumed in zip(runs_on_two["sam-whole"], runs_on_two["sam@resumed"], strict=True):
        assert len(resumed["batches"]) == 2 * (3 * PER_SHARD - 8)
        assert resumed["batches"] == whole["batches"][-len(resumed["batches"]) :]
        assert same_bits(resumed["weights"], whole["weights"])
