"""Every recipe in the repository still parses, and its data, model and trainer can be built and take a batch."""

import math

import pytest
import torch

import run_glue
from tests.command_lines import later_wins

from . import made_glue


METHODS = {
    "adamw": ("none", None),
    "adamw-2x": ("none", None),
    "sam": ("sam", None),
    "sampa-0": ("sampa", 0.0),
    "sampa-0.1": ("sampa", 0.1),
}


@pytest.fixture
def build(monkeypatch, parquet_folder, model_folder, recipes, tmp_path):
    """Tells the story of a recipe without training, and returns the trainer and the splits to evaluate on."""
    seen = {}
    monkeypatch.setattr(run_glue.workflow, "train", lambda trainer, checkpoint: seen.update(trainer=trainer))
    monkeypatch.setattr(run_glue.workflow, "evaluate", lambda trainer, splits: seen.update(splits=splits))
    monkeypatch.setattr(run_glue.workflow, "share", lambda trainer, **card: seen.update(card=card))

    def build(recipe, *options):
        where = ["--data_dir", str(parquet_folder), "--model_name_or_path", str(model_folder)]
        run_glue.main(later_wins([str(recipes / "glue" / recipe), *where, "--output_dir", str(tmp_path), *options]))
        return seen

    return build


def test_there_is_a_recipe_for_every_task_and_method(recipes):
    found = {f"{path.parent.name}/{path.stem}" for path in (recipes / "glue").glob("*/*.yaml")}
    assert found == {f"{task}/{method}" for task in made_glue.TASKS for method in METHODS}


@pytest.mark.parametrize("task", made_glue.TASKS)
@pytest.mark.parametrize("method", METHODS)
def test_the_recipe_builds(build, task, method):
    seen = build(f"{task}/{method}.yaml")
    trainer, args = seen["trainer"], seen["trainer"].args

    name, sampa_lambda = METHODS[method]
    assert trainer.sam_config.method == name
    assert trainer.sam_config.rho == 0.05
    if sampa_lambda is not None:
        assert trainer.sam_config.sampa_lambda == sampa_lambda
    epochs = (5 if task in ("mrpc", "wnli") else 3) * (2 if method == "adamw-2x" else 1)
    assert (args.num_train_epochs, args.learning_rate, args.per_device_train_batch_size) == (epochs, 2e-5, 32)
    assert args.get_warmup_steps(231) == math.ceil(23.1)
    assert args.ddp_find_unused_parameters is False
    assert trainer.model_accepts_loss_kwargs is False
    assert {weight.dtype for weight in trainer.model.parameters()} == {torch.float32}

    classes = 1 if task == "stsb" else 3 if task == "mnli" else 2
    batch = next(iter(trainer.get_train_dataloader()))
    assert batch["labels"].shape == (made_glue.SIZES["train"],)
    assert batch["labels"].dtype == (torch.float32 if task == "stsb" else torch.int64)
    # Padded to the longest input of the batch, not to a fixed length.
    longest = int(batch["attention_mask"].sum(dim=1).max())
    assert batch["input_ids"].shape == (made_glue.SIZES["train"], longest)
    with torch.no_grad():
        output = trainer.model(**batch)
    assert output.logits.shape == (made_glue.SIZES["train"], classes)
    reference = torch.nn.functional
    expected = (
        reference.mse_loss(output.logits.squeeze(), batch["labels"])
        if task == "stsb"
        else reference.cross_entropy(output.logits, batch["labels"])
    )
    assert output.loss.item() == pytest.approx(expected.item(), rel=1e-6)
    # The second sentence of a pair has token type 1.
    assert bool(batch["token_type_ids"].any()) == (len(made_glue.COLUMNS[task]) == 2)
    assert set(seen["splits"]) == ({"", "_mm"} if task == "mnli" else {""})


def labels_of(seen):
    return seen["trainer"].train_dataset["label"][:], seen["splits"][""]["label"][:]


def test_label_noise_reaches_the_training_labels_alone(build):
    train, evaluation = labels_of(build("mnli/sam.yaml"))
    noisy, same = labels_of(build("mnli/sam.yaml", "--label_noise", "0.25"))
    assert same == evaluation == made_glue.examples("mnli", "validation_matched")["label"].tolist()
    assert train == made_glue.examples("mnli", "train")["label"].tolist()
    assert sum(a != b for a, b in zip(train, noisy, strict=True)) == 6
    assert labels_of(build("mnli/adamw.yaml", "--label_noise", "0.25"))[0] == noisy
    assert labels_of(build("mnli/sam.yaml", "--label_noise", "0.25", "--seed", "1"))[0] != noisy
    # The seed of the data is the one that chooses it, so that runs with other seeds can share it.
    assert labels_of(build("mnli/sam.yaml", "--label_noise", "0.25", "--seed", "1", "--data_seed", "42"))[0] == noisy


def test_samples_are_taken_and_the_validation_split_stays_unseen_with_holdout(build):
    seen = build("rte/sam.yaml", "--max_train_samples", "20", "--max_eval_samples", "5")
    assert (len(seen["trainer"].train_dataset), len(seen["splits"][""])) == (20, 5)

    seen = build("rte/sam.yaml", "--max_train_samples", "20", "--holdout", "0.1", "--label_noise", "1.0")
    held_out, train = seen["splits"][""], seen["trainer"].train_dataset
    assert (len(train), len(held_out)) == (18, 2)
    texts = made_glue.examples("rte", "train")
    clean = build("rte/sam.yaml", "--max_train_samples", "20", "--holdout", "0.1")
    assert held_out["label"][:] == clean["splits"][""]["label"][:]
    assert [1 - label for label in train["label"]] == clean["trainer"].train_dataset["label"][:]
    tokenizer = seen["trainer"].processing_class
    pairs = zip(texts["sentence1"], texts["sentence2"], strict=True)
    train_inputs = {tuple(tokenizer(*pair)["input_ids"]) for pair in pairs}
    assert {tuple(ids) for ids in held_out["input_ids"]} <= train_inputs


def test_inputs_are_truncated_and_padded_as_asked(build):
    build_ids = build("qnli/sam.yaml", "--max_length", "6", "--pad_to_max_length")["trainer"].train_dataset[
        "input_ids"
    ]
    assert {len(ids) for ids in build_ids} == {6}


def test_the_card_says_what_the_model_was_trained_on(build):
    card = build("stsb/sam.yaml")["card"]
    assert card["language"] == "en"
    assert (card["dataset_tags"], card["dataset_args"]) == ("nyu-mll/glue", "stsb")


def test_a_misspelt_option_of_a_recipe_is_refused(build):
    with pytest.raises(ValueError, match="unknown option 'label_nois'; did you mean 'label_noise'"):
        build("rte/sam.yaml", "--label_nois", "0.2")
    with pytest.raises(ValueError, match="task_name='rtte': did you mean 'rte'"):
        build("rte/sam.yaml", "--task_name", "rtte")
