"""The mixin in front of trainers that are not Trainer, and the sequence-to-sequence trainer."""

import numpy as np
import pytest
import torch
from transformers import BartConfig, BartForConditionalGeneration, GenerationConfig, Seq2SeqTrainingArguments
from transformers import Seq2SeqTrainer as StockSeq2SeqTrainer

from hf_sam import SAMConfig, SAMSeq2SeqTrainer, SAMTrainerMixin
from tests import harness
from tests.host import setups, trainers


@pytest.mark.parametrize("prepare_loader", [True, False], ids=["its own loader, prepared", "its own loader, as it is"])
@pytest.mark.parametrize("name", ["sam", "sampa"])
def test_a_trainer_with_its_own_hooks_has_the_numbers_of_a_plain_one(name, prepare_loader, tmp_path):
    options = {
        "data_collator": trainers.collate_with_index,
        "arguments": {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2},
    }
    rows, config = setups.sentences(28), setups.CONFIGS[name]
    own = setups.make_trainer(
        setups.classifier(),
        rows,
        tmp_path,
        config,
        base=trainers.WithOwnHooks,
        prepare_loader=prepare_loader,
        **options,
    )
    own.train()
    plain = setups.train(
        setups.classifier(), rows, tmp_path, config, **options | {"data_collator": setups.collate_for_classification}
    )
    assert harness.same_bits(harness.weights_of(own.model), plain["weights"])
    ours = setups.outcome(own)
    assert ours["losses"] == plain["losses"]
    assert ours["perturbed_losses"] == plain["perturbed_losses"]
    # Its own hooks were really used: what it counts, once for each micro-batch (7 in an epoch), and in every log.
    assert own.steps_taken == 2 * 7
    entropies = [entry["entropy"] for entry in own.state.log_history if "loss" in entry]
    assert len(entropies) == ours["steps"] == 8
    assert all(0 < entropy <= np.log(3) + 1e-9 for entropy in entropies)


def test_a_trainer_that_computes_its_own_loss_is_perturbed_along_that_loss(tmp_path):
    """The loss is the model's, so the weights are too."""
    options = {"data_collator": setups.collate_for_classification}
    own, plain = (
        setups.train(setups.classifier(), setups.sentences(24), tmp_path, setups.CONFIGS["sam"], **options, **base)
        for base in ({"base": trainers.WithOwnLoss}, {})
    )
    setups.assert_same_weights(own, plain, tolerance=1e-12)


def test_the_mixin_alone_changes_nothing_where_the_method_is_none(tmp_path):
    options = {"data_collator": trainers.collate_with_index, "base": trainers.WithOwnHooks}
    ours = setups.train(setups.classifier(), setups.sentences(24), tmp_path, SAMConfig(method="none"), **options)
    stock = setups.train(setups.classifier(), setups.sentences(24), tmp_path, None, **options)
    assert harness.same_bits(ours["weights"], stock["weights"])
    assert ours["losses"] == stock["losses"]
    assert not ours["perturbed_losses"]


def test_options_of_the_other_trainer_are_passed_on(tmp_path):
    class Named(trainers.WithOwnLoss):
        def __init__(self, *args, title, **kwargs):
            super().__init__(*args, **kwargs)
            self.title = title

    class Sharp(SAMTrainerMixin, Named):
        pass

    arguments = setups.make_arguments(tmp_path)
    trainer = Sharp(setups.classifier(), arguments, title="t", sam_config=SAMConfig(rho=0.7))
    assert (trainer.title, trainer.sam_config.rho, trainer.args) == ("t", 0.7, arguments)


# ---- sequence to sequence ----

SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}


def seq2seq_model():
    torch.manual_seed(1)
    sides = {
        f"{side}_{name}": value
        for side in ("encoder", "decoder")
        for name, value in {"layers": 1, "ffn_dim": 32, "attention_heads": 2}.items()
    }
    config = BartConfig(
        vocab_size=setups.VOCABULARY, d_model=16, max_position_embeddings=32, dropout=0.1, **sides, **SPECIAL
    )
    model = BartForConditionalGeneration(config)
    model.generation_config = GenerationConfig(max_length=8, num_beams=2, forced_eos_token_id=2, **SPECIAL)
    return model


def collate_reversal(rows):
    """Input ids, and the same ids backwards as labels."""
    batch = setups.pad(rows)
    labels = torch.full(batch["input_ids"].shape, setups.IGNORED)
    for position, row in enumerate(rows):
        labels[position, : len(row["input_ids"])] = torch.tensor(row["input_ids"][::-1])
    return batch | {"labels": labels}


def train_seq2seq(folder, cls, **options):
    arguments = setups.make_arguments(
        folder, Seq2SeqTrainingArguments, predict_with_generate=True, eval_strategy="steps", eval_steps=2
    )
    generated = []

    def metrics(prediction):
        generated.append(prediction.predictions)
        return {"sum": int(np.where(prediction.predictions > 0, prediction.predictions, 0).sum())}

    rows = setups.sentences(32)
    common = {"train_dataset": rows, "eval_dataset": rows[:8], "data_collator": collate_reversal}
    trainer = cls(seq2seq_model(), arguments, **common, compute_metrics=metrics, **options)
    trainer.train()
    evaluations = [
        (entry["eval_sum"], entry["eval_loss"]) for entry in trainer.state.log_history if "eval_sum" in entry
    ]
    return trainer, evaluations, generated[-1]


def test_seq2seq_trains_and_evaluates_with_generate(tmp_path):
    stock, stock_evaluations, _ = train_seq2seq(tmp_path, StockSeq2SeqTrainer)
    flat, evaluations, _ = train_seq2seq(tmp_path, SAMSeq2SeqTrainer, sam_config=SAMConfig(rho=0.0))
    assert harness.same_bits(harness.weights_of(flat.model), harness.weights_of(stock.model))
    assert evaluations == stock_evaluations
    assert len(evaluations) == 4


@pytest.mark.parametrize("method", ["sam", "sampa"])
def test_seq2seq_generates_with_the_unperturbed_weights(method, tmp_path):
    trainer, evaluations, generated = train_seq2seq(
        tmp_path, SAMSeq2SeqTrainer, sam_config=SAMConfig(method=method, rho=0.5)
    )
    _, flat, _ = train_seq2seq(tmp_path, SAMSeq2SeqTrainer, sam_config=SAMConfig(rho=0.0))
    assert evaluations[-1] != flat[-1]
    batch = collate_reversal(setups.sentences(32)[:8])
    trainer.model.eval()
    expected = trainer.model.generate(batch["input_ids"], attention_mask=batch["attention_mask"]).numpy()
    width = expected.shape[1]
    assert np.array_equal(generated[:, :width], expected)
    with torch.no_grad():
        loss = float(trainer.model(**batch).loss)
    assert abs(evaluations[-1][1] - loss) < 1e-5
