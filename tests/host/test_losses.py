"""The same rows make the same update, however they are dealt to micro-batches and ranks, whoever scales the loss."""

import pytest

from tests.host import setups
from tests.host.cases import CASES


METHODS = ("sam-global", "sampa")
SCALED_BY_THE_MODEL = [f"causal-lm-{name}-{steps}" for name in METHODS for steps in (1, 4)]
OTHERS = [
    f"{what}-{name}-{steps}"
    for what in ("head", "smoothing", "loss-func", "own-loss", "own-hooks")
    for name in METHODS
    for steps in (1, 2)
]
# Here the host multiplies loss and gradient by micro-batches × ranks, and SAM under DDP is what DDP is.
QUIRKY = ("head-sam-global", "own-hooks-sam-global")


@pytest.mark.parametrize("name", SCALED_BY_THE_MODEL + [name for name in OTHERS if not name.startswith(QUIRKY)])
def test_two_ranks_equal_one_process(name, on_one_process, on_two_ranks):
    alone, both = on_one_process(name), on_two_ranks[name]
    for rank in both:
        setups.assert_same_weights(rank, alone)
        setups.assert_same_losses(rank, alone)
    assert alone["steps"] == both[0]["steps"] >= 6


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith(QUIRKY)])
def test_the_ascent_does_not_change_how_the_host_scales_the_loss_of_a_head(name, on_one_process, on_two_ranks):
    """Its `forward` takes keyword arguments and ignores `num_items_in_batch`: the stock losses are doubled too."""
    for ours, alone in zip(on_two_ranks[name][0]["losses"][:1], on_one_process(name)["losses"], strict=False):
        assert abs(ours - 2 * alone) < 1e-5


@pytest.mark.parametrize("name", ["sam", "sam-global", "sampa"])
def test_batch_8_equals_accumulation_of_4_times_2(name, tmp_path):
    """With ragged padding, and a last window that is shorter."""

    def run(size, accumulation):
        arguments = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation}
        options = {"data_collator": setups.collate_for_causal_lm, "arguments": arguments}
        return setups.train(setups.causal_lm(), setups.sentences(28), tmp_path, setups.CONFIGS[name], **options)

    whole, split = run(8, 1), run(2, 4)
    assert whole["steps"] == split["steps"] == 8
    setups.assert_same_weights(split, whole)
    setups.assert_same_losses(split, whole)


def test_a_loss_that_is_a_mean_over_each_micro_batch_would_not_pass(tmp_path):
    """Ragged rows: the mean of means is another number, so the invariance above says something."""

    def run(size, accumulation):
        arguments = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation}
        options = {"data_collator": setups.collate_for_causal_lm, "arguments": arguments}
        config = setups.CONFIGS["sam"]
        trainer = setups.make_trainer(setups.causal_lm(), setups.sentences(28), tmp_path, config, **options)
        trainer.model_accepts_loss_kwargs = False
        trainer.train()
        return setups.outcome(trainer)

    setups.assert_moved(run(8, 1), run(2, 4), least=1e-4)


def test_methods_differ_from_each_other_and_from_the_stock_trainer(tmp_path):
    options = {"data_collator": setups.collate_for_causal_lm}
    runs = [
        setups.train(setups.causal_lm(), setups.sentences(24), tmp_path, config, **options)
        for config in (None, setups.CONFIGS["sam"], setups.CONFIGS["sampa"])
    ]
    for left in range(3):
        for right in range(left):
            setups.assert_moved(runs[left], runs[right], least=1e-3)
