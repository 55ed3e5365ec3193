"""A convolutional network: its running statistics are those of the unperturbed passes alone, computed here by hand."""

import pytest
import torch

from . import runs


MOMENTUM = 0.1


def check_statistics(result, tracked: slice, inputs=None):
    """The weighted means of what went into every BatchNorm module in the tracked forward passes."""
    for name, passes in (inputs or result["inputs"]).items():
        mean, variance = torch.zeros(()), torch.ones(())
        for x in passes[tracked]:
            mean = (1 - MOMENTUM) * mean + MOMENTUM * x.mean((0, 2, 3))
            variance = (1 - MOMENTUM) * variance + MOMENTUM * x.var((0, 2, 3), unbiased=True)
        weights = result["weights"]
        assert torch.allclose(weights[f"{name}.running_mean"], mean, rtol=1e-5, atol=1e-6)
        assert torch.allclose(weights[f"{name}.running_var"], variance, rtol=1e-5, atol=1e-6)
        assert weights[f"{name}.num_batches_tracked"] == len(passes[tracked]) == result["updates"]


# What is run once per update: the pass; the ascent pass of two; every second pass after the first h and p.
TRACKED = {"none": slice(None), "sam": slice(0, None, 2), "sampa": slice(2, None, 2)}


@pytest.mark.parametrize("method", TRACKED)
def test_statistics_follow_the_unperturbed_passes(method, tmp_path):
    result = runs.train(runs.Run(method, model="resnet"), tmp_path)
    assert len(result["inputs"]) == 6
    assert result["updates"] == 3 * runs.UPDATES_PER_EPOCH
    check_statistics(result, TRACKED[method])


def test_statistics_of_the_perturbed_passes_are_others(tmp_path):
    """What is compared above would not pass with the other passes."""
    result = runs.train(runs.Run("sam", model="resnet"), tmp_path)
    with pytest.raises(AssertionError):
        check_statistics(result, slice(1, None, 2))
