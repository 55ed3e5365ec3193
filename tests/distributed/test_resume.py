"""On several ranks too, resumed equals uninterrupted bit for bit; checkpoints move to another number of ranks."""

import pytest

from tests import harness
from tests.distributed.launch import launch


EXAMPLES = 40  # 10 updates in an epoch of SAMPa on one pair, 5 of SAM on two ranks.
METHODS = {
    "sam": {"method": "sam", "config": {"rho": 0.3}},
    "sampa": {"method": "sampa", "config": {"rho": 0.3}},
    "sampa-0": {"method": "sampa", "config": {"rho": 0.3, "sampa_lambda": 0.0}},
}
STOPS = (7, 10)


def make_run(name, dropout=0.3, batch=4, **options):
    arguments = {
        "save_strategy": "steps",
        "save_steps": 1,
        "num_train_epochs": 3,
        "per_device_train_batch_size": batch,
        "train_sampling_strategy": "random" if dropout else "sequential",
    }
    values = METHODS[name] | {"examples": EXAMPLES, "arguments": arguments, "model": {"dropout": dropout}}
    return harness.Run(**values | options)


@pytest.fixture(scope="module")
def on_two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("resume")
    runs = {}
    for name in METHODS:
        runs[f"{name}-whole"] = make_run(name)
        for stop in STOPS:
            cut = f"{name}-cut-{stop}"
            runs[cut] = make_run(name, stop_after=stop)
            runs[f"{name}-resumed-{stop}"] = make_run(name, resume_from=str(folder / cut / f"checkpoint-{stop}"))
    runs["moving"] = make_run("sampa", dropout=0.0, stop_after=7)
    runs["whole"] = make_run("sampa", dropout=0.0)
    return folder, launch(2, runs, folder)


@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize("name", METHODS)
def test_resumed_equals_uninterrupted_on_two_ranks(name, stop, on_two):
    _, results = on_two
    for whole, resumed in zip(results[f"{name}-whole"], results[f"{name}-resumed-{stop}"], strict=True):
        assert resumed["state"]["global_step"] == whole["state"]["global_step"] > 10
        assert resumed["trace"].hashes == whole["trace"].hashes[stop:]
        assert harness.same_bits(resumed["weights"], whole["weights"])
        assert harness.same_bits(resumed["optimizer"], whole["optimizer"])


def test_a_two_rank_checkpoint_goes_on_on_one_process_and_on_four_ranks(on_two, tmp_path):
    """With the same total batch: 4 examples on one pair or one process, 2 on each of two pairs."""
    folder, results = on_two
    checkpoint = str(folder / "moving" / "checkpoint-7")
    whole = results["whole"][0]["weights"]
    alone = harness.train(make_run("sampa", dropout=0.0, resume_from=checkpoint), tmp_path / "one")
    assert harness.largest_difference(alone["weights"], whole) < 1e-10
    four = launch(4, {"four": make_run("sampa", dropout=0.0, batch=2, resume_from=checkpoint)}, tmp_path)["four"]
    for result in four:
        assert harness.largest_difference(result["weights"], whole) < 1e-10


def test_resumed_equals_uninterrupted_on_four_ranks(tmp_path):
    """Where DistributedDataParallel would sum in other buckets in the first update after a start than later."""
    runs = {}
    for name in ("sam", "sam-global", "sampa"):
        base = {"dtype": "float32", "model": {"dropout": 0.3, "width": 96}, "examples": 80}
        method = METHODS.get(name, {"method": "sam", "config": {"rho": 0.3, "ascent_scope": "global"}})
        saved = {"save_strategy": "steps", "save_steps": 2, "num_train_epochs": 1, "max_steps": 5}
        runs[name] = harness.Run(**method | base, arguments=saved)
        resumed = str(tmp_path / name / "checkpoint-2")
        runs[f"{name}-resumed"] = harness.Run(**method | base, arguments=saved, resume_from=resumed)
    results = launch(4, runs, tmp_path)
    for name in ("sam", "sam-global", "sampa"):
        for whole, resumed in zip(results[name], results[f"{name}-resumed"], strict=True):
            assert resumed["trace"].hashes == whole["trace"].hashes[2:]
            assert len(resumed["trace"].hashes) == 3
