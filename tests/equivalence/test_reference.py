"""SAM and SAMPa equal an independent float64 reference, on one process."""

import pytest

from tests import harness, reference


UPDATES_TOLERANCE = 1e-10


def windows(run, epochs, accumulation, shards=1):
    rows = harness.make_dataset(run.examples)
    return reference.windows_of(rows, epochs, shards, accumulation, batch_size=4)


def start(run, tmp_path):
    trainer = harness.make_trainer(run, tmp_path)
    reference.divide_as(trainer)
    return harness.weights_of(trainer.model)


@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("scope", ["rank", "global", "micro_batch"])
def test_sam_equals_the_reference_over_20_updates(scope, accumulation, tmp_path):
    # 11 batches: with accumulation 3 each epoch ends with a window of 2. Two or five epochs give at least 20 updates.
    epochs = 2 if accumulation == 1 else 5
    run = harness.Run(
        config={"rho": 0.3, "ascent_scope": scope},
        arguments={"gradient_accumulation_steps": accumulation, "num_train_epochs": epochs},
    )
    result = harness.train(run, tmp_path)
    stream = windows(run, epochs, accumulation)
    expected = reference.train_sam(start(run, tmp_path), stream, 0.3, scope)
    assert result["state"]["global_step"] == len(stream) >= 20
    assert harness.largest_difference(result["weights"], expected) < UPDATES_TOLERANCE


@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("lam", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("lookahead", ["optimizer", "gradient"])
def test_sampa_equals_the_reference_over_25_updates(lookahead, lam, accumulation, tmp_path):
    epochs = 3 if accumulation == 1 else 7
    run = harness.Run(
        method="sampa",
        config={"rho": 0.3, "sampa_lambda": lam, "lookahead": lookahead},
        arguments={"gradient_accumulation_steps": accumulation, "num_train_epochs": epochs},
    )
    result = harness.train(run, tmp_path)
    stream = windows(run, epochs, accumulation)
    expected = reference.train_sampa(
        start(run, tmp_path), stream, 0.3, lam, lookahead=lookahead, after_the_last=stream[0]
    )
    assert result["state"]["global_step"] == len(stream) >= 25
    assert harness.largest_difference(result["weights"], expected) < UPDATES_TOLERANCE


def test_the_references_differ_from_plain_adamw(tmp_path):
    """What is compared above would not pass by doing nothing."""
    run = harness.Run()
    stream, w = windows(run, 2, 1), start(run, tmp_path)
    plain = reference.train_sam(w, stream, 0.0, "global")
    assert harness.largest_difference(plain, reference.train_sam(w, stream, 0.3, "global")) > 1e-3
    assert (
        harness.largest_difference(plain, reference.train_sampa(w, stream, 0.3, 0.0, after_the_last=stream[0])) > 1e-3
    )
