"""Near a minimum what looks ahead, is stale or averaged does what SAM does; other directions keep a distance."""

import sys
from pathlib import Path

import pytest


sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.convergence import CONFIGS, compare, descend
from hf_sam import SAMConfig
from hf_sam.methods import METHODS
from hf_sam.perturbations import momentum


STAY = ("OptSAM", "RandSAM")
SQUARED_DISTANCE = 0.05


@pytest.fixture(scope="module")
def final():
    return {name: mean_of_last(values) for name, values in compare(1500).items()}


def mean_of_last(values):
    return sum(values[-100:]) / 100


@pytest.mark.parametrize("name", [name for name in CONFIGS if name not in STAY])
def test_these_converge(name, final):
    assert final[name] < 1e-4 * SQUARED_DISTANCE
    for other in STAY:
        assert final[other] > 20 * final[name]


def test_momentum_with_the_wrong_sign_stays_at_a_distance(final, monkeypatch):
    scale = momentum.scale
    monkeypatch.setattr(momentum, "scale", lambda tensors, factor: scale(tensors, -factor))
    config = SAMConfig(rho=0.1, perturbation="momentum")
    wrong = mean_of_last(descend(METHODS["sam"](config), 1500, momentum=0.9))
    assert wrong > 0.5 * 0.1**2
    assert wrong > 1e4 * final["MSAM"]
