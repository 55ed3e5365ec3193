"""The similarity that justifies SAMPa: the callback logs what the reference computes, and disturbs nothing."""

import pytest
import torch

from hf_sam import SAMPaSimilarity
from tests import harness, reference


def expected(start, windows, updates, rho=0.05, lam=0.1):
    """update -> (cosine, distance) of the reference's gradient at the weights and its h."""
    w, adam, found = start, reference.Adam(start, updates), {}
    h = reference.window_gradient(w, windows[0])
    for update, (window, upcoming) in enumerate(zip(windows, [*windows[1:], windows[0]], strict=True)):
        g = reference.window_gradient(w, window)
        dot = sum((g[name] * h[name]).sum() for name in g)
        distance = reference.norm({name: g[name] - h[name] for name in g})
        found[update] = float(dot / reference.norm(g) / reference.norm(h)), float(distance)
        p = reference.window_gradient(reference.perturbed(w, h, rho), window)
        y, _ = adam.moved(w, h)
        h = reference.window_gradient(y, upcoming)
        w = adam.step(w, {name: (1 - lam) * p[name] + lam * h[name] for name in w})
    return found


def test_logs_the_cosine_and_the_distance_and_changes_nothing(tmp_path):
    run = harness.Run(method="sampa")
    watched = harness.train(harness.Run(method="sampa", similarity_every=5), tmp_path)
    alone = harness.train(run, tmp_path)
    assert harness.same_bits(watched["weights"], alone["weights"])
    assert torch.equal(watched["rng"], alone["rng"])

    trainer = harness.make_trainer(run, tmp_path)
    reference.divide_as(trainer)
    start = harness.weights_of(trainer.model)
    windows = reference.windows_of(harness.make_dataset(44), 2, shards=1, accumulation=1, batch_size=4)
    reference_values = expected(start, windows, len(windows))
    logged = {entry["step"] - 1: entry for entry in watched["log"] if "sampa/cosine" in entry}
    assert sorted(logged) == [5, 10, 15, 20]
    for update, entry in logged.items():
        cosine, distance = reference_values[update]
        assert entry["sampa/cosine"] == pytest.approx(cosine, abs=1e-6)
        assert entry["sampa/distance"] == pytest.approx(distance, abs=1e-6)
        assert 0.3 < cosine < 1.0


def test_needs_sampa(tmp_path):
    with pytest.raises(ValueError, match="method='sampa'"):
        harness.make_trainer(harness.Run(similarity_every=1), tmp_path)


@pytest.mark.parametrize("interval", [0, 1.5, True, "10"])
def test_needs_a_positive_interval(interval):
    with pytest.raises(ValueError, match=f"every_n_updates={interval!r}"):
        SAMPaSimilarity(interval)
