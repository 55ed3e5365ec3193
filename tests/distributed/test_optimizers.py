"""SAMPa on two ranks around any optimizer, of which only one rank of the pair takes the trial step."""

import pytest

from tests import harness
from tests.distributed.launch import launch
from tests.optimizers import OPTIMIZERS, TRAINED, maker_of


def sampa_run(name):
    maker = OPTIMIZERS[name]
    return harness.Run(method="sampa", model={"dropout": 0.3}, optimizer=(maker.path, maker.options))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    here = {name: sampa_run(name) for name in TRAINED if OPTIMIZERS[name].optimizer_class}
    return launch(2, here, tmp_path_factory.mktemp("optimizers"))


@pytest.mark.parametrize("name", TRAINED)
def test_both_ranks_hold_the_same_bits_and_those_of_one_process_to_rounding(name, trained, tmp_path):
    maker_of(name)
    first, second = trained[name]
    assert first["trace"].hashes == second["trace"].hashes
    assert len(set(first["trace"].hashes)) == first["state"]["global_step"] == 22
    alone = harness.train(sampa_run(name), tmp_path)
    assert harness.largest_difference(first["weights"], alone["weights"]) < 1e-10
