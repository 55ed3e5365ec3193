"""When to perturb: the radius of each update by its formula, and runs that equal a reference with it."""

import math

import pytest
import torch

from hf_sam import SAMConfig, validation
from hf_sam.schedule import Schedule
from tests import harness, reference
from tests.distributed.launch import launch
from tests.equivalence.test_reference import start, windows


UPDATES = 22
RHO = 0.3


def radii(updates=10, **options):
    schedule = Schedule(rho=1.0, **options)
    return [schedule.radius(update, updates) for update in range(updates)]


def test_constant_over_the_whole_run_unless_told_otherwise():
    assert radii() == [1.0] * 10
    assert not Schedule(rho=1.0).varies


def test_outside_of_start_and_end_there_is_no_radius():
    none = [None]
    assert radii(start=3) == radii(start=0.3) == none * 3 + [1.0] * 7
    assert radii(end=4) == radii(end=0.4) == [1.0] * 4 + none * 6
    assert radii(start=0.25, end=0.75) == none * 3 + [1.0] * 5 + none * 2
    assert radii(start=1, every=4) == [None, 1.0, None, None, None, 1.0, None, None, None, 1.0]


def test_linear_and_cosine_run_from_rho_to_rho_end_between_start_and_end():
    assert radii(5, kind="linear", rho_end=3.0) == pytest.approx([1.0, 1.5, 2.0, 2.5, 3.0])
    assert radii(5, kind="linear") == pytest.approx([1.0, 0.75, 0.5, 0.25, 0.0])
    cosine = [0.2 + 0.8 * (1 + math.cos(math.pi * step / 4)) / 2 for step in range(5)]
    assert radii(5, kind="cosine", rho_end=0.2) == pytest.approx(cosine)
    assert radii(9, kind="linear", start=2, end=7)[2:7] == pytest.approx([1.0, 0.75, 0.5, 0.25, 0.0])


def test_a_warm_up_reaches_rho_with_its_last_update():
    assert radii(6, warmup=4) == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 1.0])
    assert radii(8, warmup=0.25, start=3)[3:] == pytest.approx([0.5, 1.0, 1.0, 1.0, 1.0])


def test_in_proportion_to_the_learning_rate():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=4.0)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 0.25)
    assert Schedule(rho=1.0, kind="learning_rate").radius(0, 10, optimizer) == 0.25
    assert Schedule(rho=1.0, kind="learning_rate", rho_end=0.2).radius(0, 10, optimizer) == pytest.approx(0.4)


@pytest.mark.parametrize("options", [{"start": 22}, {"start": 5, "end": 5}, {"start": 0.5, "end": 3}])
def test_a_schedule_that_never_perturbs_is_refused_before_training(options, tmp_path):
    trainer = harness.make_trainer(harness.Run(config=options), tmp_path)
    before = harness.weights_of(trainer.model)
    with pytest.raises(ValueError, match=r"SAMConfig\.start=.*SAMConfig\.end=.*22 updates"):
        trainer.train()
    assert harness.same_bits(before, harness.weights_of(trainer.model))


SCHEDULES = {
    "start": {"start": 7},
    "end": {"end": 0.5},
    "every": {"every": 3, "start": 2},
    "linear": {"rho_schedule": "linear", "rho_end": 0.05, "rho_warmup": 4},
    "learning rate": {"rho_schedule": "learning_rate", "start": 0.2},
}


def train_sam(w, stream, schedule, rho_of):
    adam = reference.Adam(w, len(stream))
    for update, window in enumerate(stream):
        rho = rho_of(schedule, update, adam)
        d = reference.window_gradient(w, window)
        if rho is not None:
            d = reference.window_gradient(reference.perturbed(w, d, rho), window)
        w = adam.step(w, d)
    return w


def rho_of(schedule, update, adam):
    if schedule.kind == "learning_rate":
        return None if update < schedule.start * UPDATES else RHO * adam.eta / adam.lr
    return schedule.radius(update, UPDATES)


@pytest.mark.parametrize("name", SCHEDULES)
def test_sam_equals_the_reference(name, tmp_path):
    run = harness.Run(config={"rho": RHO} | SCHEDULES[name])
    result = harness.train(run, tmp_path)
    schedule = SAMConfig(rho=RHO, **SCHEDULES[name]).schedule
    expected = train_sam(start(run, tmp_path), windows(run, 2, 1), schedule, rho_of)
    assert result["state"]["global_step"] == UPDATES
    assert harness.largest_difference(result["weights"], expected) < 1e-10


def train_sampa(w, stream, first, last, lam=0.1):
    """Perturbs from update `first` to `last`, with a lookahead gradient that is computed anew at `first`."""
    adam = reference.Adam(w, len(stream))
    h = None
    for update, (window, upcoming) in enumerate(zip(stream, [*stream[1:], stream[0]], strict=True)):
        if not first <= update <= last:
            w = adam.step(w, reference.window_gradient(w, window))
            continue
        h = reference.window_gradient(w, window) if update == first else h
        p = reference.window_gradient(reference.perturbed(w, h, RHO), window)
        h = reference.window_gradient(adam.moved(w, h)[0], upcoming)
        w = adam.step(w, {name: (1 - lam) * p[name] + lam * h[name] for name in w})
    return w


def sampa_run(**options):
    return harness.Run(method="sampa", config={"rho": RHO, "start": 5, "end": 0.75}, **options)


def test_sampa_equals_the_reference(tmp_path):
    run = sampa_run()
    result = harness.train(run, tmp_path)
    expected = train_sampa(start(run, tmp_path), windows(run, 2, 1), 5, 16)
    assert harness.largest_difference(result["weights"], expected) < 1e-10


def test_sampa_on_a_pair_equals_the_reference(tmp_path):
    """Also where the run is cut before, in the middle of, and after the updates that perturb."""
    saved = {"save_strategy": "steps", "save_steps": 1}
    runs = {"whole": sampa_run(arguments=saved)}
    for stop in (3, 10, 18):
        runs[f"from {stop}"] = sampa_run(resume_from=str(tmp_path / f"whole/checkpoint-{stop}"))
    results = launch(2, runs, tmp_path)
    expected = train_sampa(start(runs["whole"], tmp_path), windows(runs["whole"], 2, 1), 5, 16)
    for name, ranks in results.items():
        assert harness.largest_difference(ranks[0]["weights"], expected) < 1e-10, name
        assert ranks[0]["trace"].hashes == ranks[1]["trace"].hashes
        stop = int(name.split()[-1]) if "from" in name else 0
        assert ranks[0]["trace"].hashes == results["whole"][0]["trace"].hashes[stop:], name


# SAMPa reads its data with random streams of its own, so its dropout masks are others than those of the stock Trainer.
@pytest.mark.parametrize(("method", "dropout"), [("sam", 0.3), ("sampa", 0.0)])
def test_before_the_start_a_run_is_the_stock_trainers_bit_for_bit(method, dropout, tmp_path):
    options = {"model": {"dropout": dropout, "batch_norm": True}, "stop_after": 9}
    stock = harness.train(harness.Run(trainer="stock", **options), tmp_path)
    ours = harness.train(harness.Run(method=method, config={"start": 9}, **options), tmp_path)
    assert ours["trace"].hashes == stock["trace"].hashes
    assert len(stock["trace"].hashes) == 9


def test_a_stock_update_costs_one_gradient(tmp_path):
    passes = {}
    for name, options in {"whole": {}, **SCHEDULES}.items():
        trainer = harness.make_trainer(harness.Run(config=options), tmp_path)
        trainer.train()
        passes[name] = trainer.model.passes
    assert passes["whole"] == 2 * UPDATES
    assert passes["start"] == 2 * UPDATES - 7
    assert passes["end"] == UPDATES + 11
    assert passes["every"] == UPDATES + 7
    assert passes["linear"] == 2 * UPDATES


def test_a_changing_radius_is_logged(tmp_path):
    run = harness.Run(config={"rho": RHO, "rho_schedule": "linear", "start": 2})
    logged = [entry.get("sam/rho") for entry in harness.train(run, tmp_path)["log"] if "loss" in entry]
    expected = [SAMConfig(rho=RHO, rho_schedule="linear", start=2).schedule.radius(t, UPDATES) for t in range(UPDATES)]
    assert logged[:2] == expected[:2] == [None, None]
    assert logged[2:] == pytest.approx(expected[2:])


def test_sampa_with_stock_updates_in_between_is_refused(tmp_path):
    trainer = harness.make_trainer(harness.Run(), tmp_path)
    with pytest.raises(ValueError, match=r"method='sampa' cannot be combined with every=2.*method='sam'"):
        validation.check_compatibility(trainer, SAMConfig("sampa", every=2))
