"""Classes that a user puts together wrongly are refused where they are made; hosts with state of their own keep it."""

import random

import pytest
import torch
from safetensors.torch import load_file
from transformers import Trainer, TrainerCallback

from hf_sam import SAMConfig, SAMTrainer, SAMTrainerMixin
from tests import harness
from tests.host import setups, trainers


def test_the_mixin_as_second_base_is_refused_where_the_class_is_made():
    with pytest.raises(
        ValueError, match=r"SAMTrainerMixin comes after Trainer.*class Mine\(SAMTrainerMixin, Trainer\)"
    ):

        class Mine(Trainer, SAMTrainerMixin):
            pass


class WithoutSuper(SAMTrainer):
    def training_step(self, model, inputs, num_items_in_batch=None):
        loss = model(**inputs).loss
        self.accelerator.backward(loss)
        return loss.detach()


class WithSuper(SAMTrainer):
    def training_step(self, *args, **kwargs):
        return super().training_step(*args, **kwargs)


class ByName(SAMTrainer):
    def training_step(self, *args, **kwargs):
        return SAMTrainer.training_step(self, *args, **kwargs)


def make(cls, folder, config):
    return cls(setups.classifier(), setups.make_arguments(folder), sam_config=config)


@pytest.mark.parametrize("method", ["sam", "sampa"])
def test_a_training_step_that_never_reaches_the_mixin_is_refused(method, tmp_path):
    with pytest.raises(ValueError, match=rf"method='{method}'.*training_step of WithoutSuper.*super\(\)"):
        make(WithoutSuper, tmp_path, SAMConfig(method))
    assert make(WithoutSuper, tmp_path, SAMConfig("none")).sam_method.is_stock
    for cls in (WithSuper, ByName):
        assert make(cls, tmp_path, SAMConfig(method)).sam_config.method == method


class Drawing(Trainer):
    """Prepares with random numbers, and keeps what it prepared for two micro-batches, as trl's online trainers do."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.steps, self.kept, self.history, self.tokens = 0, None, {"length": []}, torch.zeros(())
        self.seen = trainers.Notes()

    def _prepare_inputs(self, inputs):
        inputs = super()._prepare_inputs(inputs)
        if self.steps % 2 == 0:
            shift = int(torch.randint(0, 9, ())) + random.randrange(9)
            self.kept = (inputs["input_ids"] + shift) % setups.VOCABULARY
        self.history["length"].append(inputs["input_ids"].shape[1])
        return inputs | {"input_ids": self.kept[: len(inputs["labels"]), : inputs["input_ids"].shape[1]]}

    def compute_loss(self, model, inputs, *args, **kwargs):
        inputs.pop("attention_mask")
        self.seen.append((self.state.global_step, inputs["input_ids"].tolist()))
        self.tokens += inputs["input_ids"].numel()
        inputs["labels"] = inputs["labels"][: len(inputs["input_ids"])]
        return super().compute_loss(model, inputs, *args, **kwargs)

    def training_step(self, *args, **kwargs):
        loss = super().training_step(*args, **kwargs)
        self.steps += 1
        return loss


def train_drawing(folder, config, accumulation, dropout=0.1):
    def collate(rows):
        return setups.collate_for_classification([row | {"input_ids": row["input_ids"][:3]} for row in rows])

    trainer = setups.make_trainer(
        setups.classifier(dropout=dropout),
        setups.sentences(24),
        folder,
        config,
        base=Drawing,
        data_collator=collate,
        arguments={"per_device_train_batch_size": 4, "gradient_accumulation_steps": accumulation},
    )
    trainer.train()
    return trainer


@pytest.mark.parametrize("accumulation", [1, 2])
def test_what_a_host_draws_and_counts_happens_once(accumulation, tmp_path):
    stock = train_drawing(tmp_path, None, accumulation)
    ours = train_drawing(tmp_path, SAMConfig(rho=0.0), accumulation)
    assert harness.same_bits(harness.weights_of(ours.model), harness.weights_of(stock.model))
    assert ours.steps == stock.steps == 12
    assert ours.history == stock.history
    assert ours.tokens == stock.tokens > 0
    assert torch.equal(ours.kept, stock.kept)


@pytest.mark.parametrize("same_mask", [True, False])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_both_passes_of_an_update_see_the_same_draw(accumulation, same_mask, tmp_path):
    trainer = train_drawing(tmp_path, SAMConfig(rho=0.1, same_dropout_mask=same_mask), accumulation)
    updates = {}
    for step, ids in trainer.seen:
        updates.setdefault(step, []).append(ids)
    assert len(updates) == 12 // accumulation
    for passes in updates.values():
        assert len(passes) == 2 * accumulation
        assert passes[:accumulation] == passes[accumulation:]
    # The draws are not the same ones again and again.
    assert len({str(passes[0]) for passes in updates.values()}) >= len(updates) // 2
    assert trainer.steps == 12


def test_a_window_that_sampa_sees_ahead_is_counted_in_its_turn(tmp_path):
    stock, ours = (train_drawing(tmp_path, c, 2, 0.0) for c in (None, SAMConfig("sampa", lookahead="gradient")))
    assert ours.steps == stock.steps == 12
    assert ours.tokens == stock.tokens
    assert len(ours.history["length"]) == len(stock.history["length"])


class Beside(torch.nn.Module):
    """A loss with a weight of its own, which the model does not have."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))


class WithLoss(Trainer):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.loss = Beside()
        groups = [{"params": list(self.model.parameters())}, {"params": list(self.loss.parameters())}]
        self.optimizer = torch.optim.SGD(groups, lr=0.1)

    def compute_loss(self, model, inputs, *args, **kwargs):
        labels = inputs.pop("labels")
        return torch.nn.functional.cross_entropy(model(**inputs).logits * self.loss.scale, labels)


class Zero(TrainerCallback):
    """As sentence-transformers does for what `model.zero_grad()` does not reach."""

    def on_step_end(self, args, state, control, optimizer=None, **kwargs):
        optimizer.zero_grad()


@pytest.mark.parametrize("method", ["none", "sam", "sampa"])
def test_a_weight_beside_the_model_is_trained_and_saved_as_any_other(method, tmp_path):
    def run(config, folder, **resume):
        arguments = {"optim": "sgd", "save_strategy": "steps", "save_steps": 2, "max_steps": 4}
        trainer = setups.make_trainer(
            setups.classifier(),
            setups.sentences(24),
            folder,
            config,
            base=WithLoss,
            data_collator=setups.collate_for_classification,
            arguments=arguments,
            callbacks=[Zero()],
        )
        trainer.train(**resume)
        return trainer

    stock = run(None, tmp_path / "stock")
    flat = SAMConfig(method, rho=0.0, sampa_lambda=0.0, lookahead="gradient")
    ours = run(flat, tmp_path / "flat")
    assert torch.equal(ours.loss.scale, stock.loss.scale)
    assert harness.same_bits(harness.weights_of(ours.model), harness.weights_of(stock.model))
    if method == "none":
        return
    sharp = run(SAMConfig(method, rho=0.2, lookahead="gradient"), tmp_path / "sharp")
    assert 1e-6 < float((sharp.loss.scale - stock.loss.scale).detach().abs().max()) < 0.1
    if method == "sampa":
        state = load_file(tmp_path / "sharp" / "checkpoint-2" / "sam_state.safetensors")
        assert state["param_groups.1.0"].shape == sharp.loss.scale.shape


@pytest.mark.parametrize("method", ["sam", "sampa"])
def test_dataparallel_has_the_numbers_of_one_device(method, tmp_path):
    """The host's own wrapper; without accelerators it calls the model itself."""
    results = []
    for devices in (1, 2):
        trainer = setups.make_trainer(
            setups.classifier(),
            setups.sentences(24),
            tmp_path,
            setups.CONFIGS[method],
            data_collator=setups.collate_for_classification,
            compute_loss_func=None,
        )
        trainer.model_accepts_loss_kwargs = False
        trainer.args._n_gpu = devices
        trainer._train_batch_size = 8
        trainer.args.per_device_train_batch_size = 8 // devices
        trainer.train()
        assert isinstance(trainer.model_wrapped, torch.nn.DataParallel) is (devices == 2)
        results.append(setups.outcome(trainer))
    assert harness.same_bits(results[0]["weights"], results[1]["weights"])
    assert results[0]["losses"] == results[1]["losses"]
