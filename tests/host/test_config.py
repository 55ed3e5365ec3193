"""SAMConfig beside TrainingArguments: on the command line, from a dictionary, in files, and when it is wrong."""

import json
from dataclasses import fields

import pytest
from transformers import HfArgumentParser, Seq2SeqTrainingArguments, TrainingArguments

from hf_sam import SAMConfig, SAMSeq2SeqTrainer, SAMTrainer
from tests.host import setups


OTHERS = [TrainingArguments, Seq2SeqTrainingArguments]


def field_names(cls):
    return {field.name for field in fields(cls)}


@pytest.mark.parametrize("cls", OTHERS)
def test_composes_on_the_command_line(cls, tmp_path):
    words = f"--output_dir {tmp_path} --learning_rate 0.5 --method sampa --rho 0.2 --sampa_lambda 0.3 "
    words += "--ascent_scope global --lookahead gradient --same_dropout_mask false --use_cpu"
    arguments, config = HfArgumentParser((cls, SAMConfig)).parse_args_into_dataclasses(words.split())
    assert (type(arguments), arguments.learning_rate) == (cls, 0.5)
    assert config == SAMConfig("sampa", 0.2, 0.3, "global", "gradient", False)


@pytest.mark.parametrize("cls", OTHERS)
def test_composes_in_a_dictionary_and_in_a_file(cls, tmp_path):
    values = {"output_dir": str(tmp_path), "use_cpu": True, "method": "sampa", "rho": 0.2}
    parser = HfArgumentParser((cls, SAMConfig))
    (tmp_path / "options.json").write_text(json.dumps(values))
    for arguments, config in (parser.parse_dict(values), parser.parse_json_file(tmp_path / "options.json")):
        assert type(arguments) is cls
        assert config == SAMConfig(method="sampa", rho=0.2)


def test_the_command_line_has_the_defaults_of_python(tmp_path):
    words = ["--output_dir", str(tmp_path), "--use_cpu"]
    _, config = HfArgumentParser((TrainingArguments, SAMConfig)).parse_args_into_dataclasses(words)
    assert config == SAMConfig()


def test_the_command_line_names_what_a_choice_may_be(tmp_path, capsys):
    words = ["--output_dir", str(tmp_path), "--method", "samba"]
    with pytest.raises(SystemExit):
        HfArgumentParser((TrainingArguments, SAMConfig)).parse_args_into_dataclasses(words)
    message = capsys.readouterr().err
    assert all(word in message for word in ("--method", "samba", "none", "sam", "sampa"))


@pytest.mark.parametrize("cls", OTHERS)
def test_no_name_is_taken_twice(cls):
    assert not field_names(SAMConfig) & field_names(cls)


def test_no_name_is_taken_twice_beside_trl():
    trl = pytest.importorskip("trl")
    assert not field_names(SAMConfig) & field_names(trl.SFTConfig)


WRONG = [
    ("method", "samba", ["'none'", "'sam'", "'sampa'"]),
    ("method", None, ["'none'", "'sam'", "'sampa'"]),
    ("rho", -0.1, ["finite number >= 0"]),
    ("rho", float("nan"), ["finite number >= 0"]),
    ("rho", float("inf"), ["finite number >= 0"]),
    ("rho", "0.05", ["finite number >= 0"]),
    ("rho", True, ["finite number >= 0"]),
    ("sampa_lambda", 1.5, ["a number from 0 to 1"]),
    ("sampa_lambda", -0.5, ["a number from 0 to 1"]),
    ("sampa_lambda", None, ["a number from 0 to 1"]),
    ("ascent_scope", "batch", ["'rank'", "'global'", "'micro_batch'"]),
    ("lookahead", "adam", ["'optimizer'", "'gradient'"]),
    ("same_dropout_mask", "yes", ["True or False"]),
    ("skip_nonfinite_updates", "yes", ["True or False"]),
    ("same_dropout_mask", 1, ["True or False"]),
    ("method_args", [1], ["mapping"]),
    ("perturbation", "uphill", ["'gradient'"]),
    ("perturbation_args", "{", ["JSON"]),
    ("perturb_modules", "bert.*", ["list of patterns"]),
    ("perturb_modules", [], ["list of patterns"]),
    ("rho_schedule", "step", ["'constant'", "'linear'", "'cosine'", "'learning_rate'"]),
    ("rho_end", -1.0, ["finite number >= 0"]),
    ("rho_warmup", 2.5, ["whole number of updates", "share of the run"]),
    ("start", -3, ["whole number of updates", "share of the run"]),
    ("start", 1.5, ["whole number of updates", "share of the run"]),
    ("end", 1.0, ["leave it out", "above 1"]),
    ("end", 0, ["leave it out", "above 1"]),
    ("every", 0, ["a whole number from 1"]),
    ("every", 1.5, ["a whole number from 1"]),
    ("probability", 0, ["above 0 and at most 1"]),
    ("probability", 1.5, ["above 0 and at most 1"]),
    ("ascent_fraction", 0.0, ["above 0 and at most 1"]),
    ("ascent_fraction", float("nan"), ["above 0 and at most 1"]),
    ("ascent_loss", "bisan", ["did you mean 'bisam'", "'training'"]),
    ("ascent_loss_args", "{", ["JSON"]),
]


@pytest.mark.parametrize(("name", "value", "allowed"), WRONG)
def test_a_wrong_value_is_named_with_what_is_allowed(name, value, allowed):
    with pytest.raises(ValueError, match=f"SAMConfig.{name}=") as raised:
        SAMConfig(**{name: value})
    assert all(part in str(raised.value) for part in [repr(value), *allowed])


def test_every_field_is_validated():
    assert {name for name, _, _ in WRONG} == field_names(SAMConfig)


@pytest.mark.parametrize("value", [0, 0.0, 1, 1.0])
def test_the_ends_of_a_range_are_allowed(value):
    config = SAMConfig(rho=value, sampa_lambda=value)
    assert (config.rho, config.sampa_lambda) == (value, value)


def test_is_read_back_from_its_file_as_it_was_written(tmp_path):
    config = SAMConfig("sampa", 0.2, 0.0, "micro_batch", "gradient", False)
    config.save_pretrained(tmp_path)
    assert SAMConfig.from_pretrained(tmp_path) == config
    assert SAMConfig.from_pretrained(str(tmp_path)).to_dict() == config.to_dict()


def test_a_file_with_an_unknown_option_or_value_is_refused(tmp_path):
    path = tmp_path / "sam_config.json"
    path.write_text(json.dumps(SAMConfig().to_dict() | {"interval": 5}))
    with pytest.raises(ValueError, match=r"sam_config\.json.*interval"):
        SAMConfig.from_pretrained(tmp_path)
    path.write_text(json.dumps({"rho": -1}))
    with pytest.raises(ValueError, match=r"SAMConfig\.rho=-1"):
        SAMConfig.from_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError):
        SAMConfig.from_pretrained(tmp_path / "nothing")


@pytest.mark.parametrize("cls", [SAMTrainer, SAMSeq2SeqTrainer])
@pytest.mark.parametrize("value", [{"rho": 0.05}, "sam", SAMConfig, 0.05])
def test_options_of_another_type_are_refused(cls, value, tmp_path):
    arguments = setups.make_arguments(tmp_path, cls=Seq2SeqTrainingArguments)
    with pytest.raises(ValueError, match=r"sam_config=.*SAMConfig or None"):
        cls(setups.classifier(), arguments, train_dataset=setups.sentences(8), sam_config=value)


def test_no_options_mean_sam_with_rho_0_05(tmp_path):
    def run(**options):
        arguments = setups.make_arguments(tmp_path)
        common = {"train_dataset": setups.sentences(16), "data_collator": setups.collate_for_classification}
        trainer = SAMTrainer(setups.classifier(), arguments, **common, **options)
        trainer.train()
        return trainer.sam_config, setups.outcome(trainer)

    (config, by_default), (_, named) = run(), run(sam_config=SAMConfig(method="sam", rho=0.05))
    assert config == SAMConfig(method="sam", rho=0.05)
    assert by_default["perturbed_losses"] == named["perturbed_losses"]
    setups.assert_same_weights(by_default, named, tolerance=1e-15)
    setups.assert_moved(by_default, run(sam_config=SAMConfig(method="sam", rho=0.06))[1], least=1e-6)
