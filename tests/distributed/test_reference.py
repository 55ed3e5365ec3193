"""SAM and SAMPa equal the independent float64 reference on 2 and 4 ranks, and all ranks stay the same bit for bit."""

from functools import cache

import pytest

from tests import harness, reference
from tests.distributed.launch import launch


EXAMPLES = 80  # 20 batches of 4: 10 for each of 2 ranks, 5 for each of 4.
TOLERANCE = 1e-10
SAM = {f"sam-{scope}-{steps}": (scope, steps) for scope in ("rank", "global", "micro_batch") for steps in (1, 3)}
SAMPA = {
    f"sampa-{lookahead}-{lam}-{steps}": (lookahead, lam, steps)
    for lookahead in ("optimizer", "gradient")
    for lam in (0.0, 0.1, 1.0)
    for steps in (1, 3)
}


@cache
def epochs_for(shards: int, accumulation: int, updates: int) -> int:
    per_epoch = -(-(EXAMPLES // 4 // shards) // accumulation)
    return max(3, -(-updates // per_epoch))


def make_run(name: str, ranks: int) -> harness.Run:
    if name in SAM:
        scope, steps = SAM[name]
        arguments = {"gradient_accumulation_steps": steps, "num_train_epochs": epochs_for(ranks, steps, 20)}
        return harness.Run(config={"rho": 0.3, "ascent_scope": scope}, arguments=arguments, examples=EXAMPLES)
    lookahead, lam, steps = SAMPA[name]
    arguments = {"gradient_accumulation_steps": steps, "num_train_epochs": epochs_for(ranks // 2, steps, 25)}
    config = {"rho": 0.3, "sampa_lambda": lam, "lookahead": lookahead}
    return harness.Run(method="sampa", config=config, arguments=arguments, examples=EXAMPLES)


@pytest.fixture(scope="module", params=[2, 4])
def trained(request, tmp_path_factory):
    runs = {name: make_run(name, request.param) for name in [*SAM, *SAMPA]}
    return request.param, runs, launch(request.param, runs, tmp_path_factory.mktemp(f"ranks-{request.param}"))


@pytest.mark.parametrize("name", [*SAM, *SAMPA])
def test_equals_the_reference(name, trained, tmp_path):
    ranks, runs, results = trained
    run, result = runs[name], results[name][0]
    epochs, steps = run.arguments["num_train_epochs"], run.arguments["gradient_accumulation_steps"]
    shards = ranks if name in SAM else ranks // 2
    stream = reference.windows_of(harness.make_dataset(EXAMPLES), epochs, shards, steps, batch_size=4)
    trainer = harness.make_trainer(run, tmp_path)
    reference.divide_as(trainer)
    start = harness.weights_of(trainer.model)
    if name in SAM:
        expected = reference.train_sam(start, stream, 0.3, SAM[name][0])
    else:
        lookahead, lam, _ = SAMPA[name]
        expected = reference.train_sampa(start, stream, 0.3, lam, lookahead, after_the_last=stream[0])
    assert result["state"]["global_step"] == len(stream) >= 20
    assert harness.largest_difference(result["weights"], expected) < TOLERANCE


@pytest.mark.parametrize("name", [*SAM, *SAMPA])
def test_all_ranks_hold_the_same_bits_after_every_update(name, trained):
    _, _, results = trained
    first, *others = results[name]
    assert len(first["trace"].hashes) == first["state"]["global_step"]
    for other in others:
        assert other["trace"].hashes == first["trace"].hashes
        assert harness.same_bits(other["weights"], first["weights"])
        assert harness.same_bits(other["optimizer"], first["optimizer"])
