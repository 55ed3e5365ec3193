"""`sam_config` after construction: it cannot be changed unseen, it can be replaced, and trackers record it."""

from dataclasses import replace

import pytest
import torch
from transformers import TrainerCallback

from hf_sam import SAMConfig, SAMTrainer
from tests import harness
from tests.host import setups


def make(folder, config, callbacks=None, **arguments):
    options = {"data_collator": setups.collate_for_classification, "arguments": arguments, "callbacks": callbacks}
    return setups.make_trainer(setups.classifier(), setups.sentences(40), folder, config, **options)


class Replace(TrainerCallback):
    """Sets options of the trainer at the end of update `update`."""

    def __init__(self, update, **options):
        self.update, self.options, self.trainer = update, options, None

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.update:
            self.trainer.sam_config = replace(self.trainer.sam_config, **self.options)


def train_with(folder, config, callback):
    trainer = make(folder, config, [callback])
    callback.trainer = trainer
    trainer.train()
    return trainer


@pytest.mark.parametrize(("name", "value"), [("rho", -1), ("rho", 0.5), ("method", "none"), ("sampa_lambda", 0.3)])
def test_an_option_does_not_change_where_it_is(name, value):
    config = SAMConfig()
    with pytest.raises(ValueError, match=rf"SAMConfig\.{name}=.*dataclasses\.replace.*trainer\.sam_config"):
        setattr(config, name, value)
    assert config == SAMConfig()
    assert replace(config, sampa_lambda=0.3).sampa_lambda == 0.3
    with pytest.raises(ValueError, match=r"SAMConfig\.rho=-1"):
        replace(config, rho=-1)


@pytest.mark.parametrize("method", ["sam", "sampa"])
def test_another_radius_holds_from_the_next_update_on_and_is_logged(method, tmp_path, caplog):
    config = SAMConfig(method, rho=0.1)
    with caplog.at_level("INFO", logger="hf_sam"):
        changed = train_with(tmp_path, config, Replace(4, rho=0.4))
    assert "SAMConfig.rho changes from 0.1 to 0.4 at update 4" in caplog.text
    radii = [entry.get("sam/rho") for entry in changed.state.log_history if "loss" in entry]
    assert radii == [None] * 4 + [pytest.approx(0.4)] * 6
    # The same in a run whose radius is 0.4 from its fifth update on, by another way.
    same = train_with(tmp_path, config, Replace(4, rho_warmup=0.0, rho_schedule="constant", rho=0.4))
    assert harness.same_bits(harness.weights_of(changed.model), harness.weights_of(same.model))
    plain = make(tmp_path, config)
    plain.train()
    assert harness.largest_difference(harness.weights_of(changed.model), harness.weights_of(plain.model)) > 1e-5


def test_another_method_may_be_set_before_training_and_not_while_it_goes_on(tmp_path):
    trainer = make(tmp_path, SAMConfig())
    trainer.sam_config = SAMConfig("none")
    assert trainer.sam_method.is_stock
    trainer.sam_config = SAMConfig("sampa", rho=0.1)
    trainer.train()
    expected = make(tmp_path, SAMConfig("sampa", rho=0.1))
    expected.train()
    assert harness.same_bits(harness.weights_of(trainer.model), harness.weights_of(expected.model))
    with pytest.raises(ValueError, match=r"SAMConfig\.method='sam' while training with 'sampa'"):
        train_with(tmp_path, SAMConfig("sampa"), Replace(2, method="sam"))
    with pytest.raises(ValueError, match="must be a SAMConfig"):
        trainer.sam_config = {"rho": 0.1}
    with pytest.raises(ValueError, match=r"method='sampa' cannot be combined with every=2"):
        trainer.sam_config = SAMConfig("sampa", every=2)


class Tracker(TrainerCallback):
    """Asks for all hyperparameters as the integrations of TensorBoard, Weights & Biases and trackio do."""

    def on_train_begin(self, args, state, control, **kwargs):
        self.recorded, self.sanitized = args.to_dict(), args.to_sanitized_dict()
        self.json, self.args = args.to_json_string(), args


def test_trackers_record_the_options(tmp_path):
    tracker = Tracker()
    trainer = make(tmp_path, SAMConfig("sampa", rho=0.07), [tracker])
    before = trainer.args.to_dict()
    trainer.train()
    for recorded in (tracker.recorded, tracker.sanitized):
        assert (recorded["sam_method"], recorded["sam_rho"], recorded["sam_sampa_lambda"]) == ("sampa", 0.07, 0.1)
    assert '"sam_rho": 0.07' in tracker.json
    # Where nobody records, the arguments are the host's, and can be saved.
    assert trainer.args.to_dict() == before
    assert type(trainer.args) is type(setups.make_arguments(tmp_path))
    torch.save(tracker.args, tmp_path / "args.bin")


def test_both_losses_of_a_log_are_those_of_one_window(tmp_path):
    """SAMPa's `loss` is that of W_t at y_t, which the update before computed; at w_0 for the first."""
    run = harness.Run(method="sampa", config={"rho": 0.3, "lookahead": "gradient"}, arguments={"optim": "sgd"})
    evaluated = []

    class Watching(SAMTrainer):
        def compute_loss(self, model, inputs, *args, **kwargs):
            loss = super().compute_loss(model, inputs, *args, **kwargs)
            evaluated.append((inputs["x"][0, 0].item(), float(loss)))
            return loss

    result = harness.train(run, tmp_path, base=Watching)
    logged = [(e["loss"], e["sam/perturbed_loss"], e["sam/sharpness"]) for e in result["log"] if "loss" in e]
    of_window = {}
    # h_0, then p_t and h_{t+1} in turn: the k-th time that a window is met.
    first, pairs = evaluated[0], list(zip(evaluated[1::2], evaluated[2::2], strict=True))
    unperturbed = [first, *(ahead for _, ahead in pairs)]
    for update, (perturbed, _) in enumerate(pairs):
        assert unperturbed[update][0] == perturbed[0]
        of_window[update] = (unperturbed[update][1], perturbed[1])
    assert len(logged) == len(of_window) == 22
    for update, (loss, perturbed_loss, sharpness) in enumerate(logged):
        expected, expected_perturbed = of_window[update]
        assert loss == pytest.approx(expected, abs=1e-6)
        assert perturbed_loss == pytest.approx(expected_perturbed, abs=1e-6)
        assert sharpness == pytest.approx(expected_perturbed - expected, abs=1e-6)
