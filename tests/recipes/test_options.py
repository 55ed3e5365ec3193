"""Command line beats YAML beats base beats default; an unknown name is an error with the nearest known one."""

from dataclasses import dataclass

import pytest
from transformers import TrainingArguments

from hf_sam import SAMConfig
from hf_sam_recipes.common.options import parse_recipe


@dataclass
class DataArguments:
    task_name: str
    max_length: int = 128
    shards: list[str] | None = None


TYPES = (DataArguments, TrainingArguments, SAMConfig)


@pytest.fixture
def write(tmp_path):
    def write(name: str, text: str) -> str:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return str(path)

    return write


def parse(*args):
    return parse_recipe(TYPES, list(args))


def test_command_line_beats_yaml_beats_base_beats_default(write):
    write("base.yaml", "learning_rate: 3e-5\nrho: 0.3\nseed: 3\nnum_train_epochs: 7\n")
    recipe = write("cola/sam.yaml", "base: ../base.yaml\ntask_name: cola\nrho: 0.2\nseed: 2\n")
    data, training, sam = parse(recipe, "--seed", "1")
    assert (training.seed, sam.rho, training.learning_rate, training.num_train_epochs) == (1, 0.2, 3e-5, 7)
    assert (data.task_name, data.max_length, sam.method) == ("cola", 128, "sam")


def test_bases_are_chained_and_later_ones_win(write):
    write("a.yaml", "task_name: cola\nrho: 0.1\nseed: 1\n")
    write("b.yaml", "base: a.yaml\nrho: 0.2\n")
    write("c.yaml", "rho: 0.3\nmax_length: 9\n")
    data, training, sam = parse(write("d.yaml", "base: [c.yaml, b.yaml]\n"))
    assert (data.task_name, data.max_length, training.seed, sam.rho) == ("cola", 9, 1, 0.2)


def test_a_later_recipe_file_beats_an_earlier_one(write):
    first = write("first.yaml", "task_name: cola\nrho: 0.1\nseed: 5\n")
    _, training, sam = parse(first, write("second.yaml", "rho: 0.2\n"))
    assert (training.seed, sam.rho) == (5, 0.2)


def test_values_mean_what_they_mean_on_the_command_line(write):
    recipe = write(
        "recipe.yaml",
        "task_name: cola\nlearning_rate: 2e-5\nsave_strategy: no\nmax_steps: -1\nwarmup_steps: 0.1\n"
        "ddp_find_unused_parameters: false\nsame_dropout_mask: no\nshards: [one, two]\nmax_length: null\n"
        "lr_scheduler_type: cosine_with_min_lr\nlr_scheduler_kwargs: {min_lr: 1e-6}\n",
    )
    data, training, sam = parse(recipe)
    assert training.learning_rate == 2e-5
    assert training.save_strategy.value == "no"
    assert training.max_steps == -1
    assert training.get_warmup_steps(230) == 23
    assert training.ddp_find_unused_parameters is False
    assert sam.same_dropout_mask is False
    assert data.shards == ["one", "two"]
    assert data.max_length == 128
    assert training.lr_scheduler_kwargs == {"min_lr": 1e-6}


def test_options_of_one_method_are_a_mapping_in_yaml_and_json_on_the_command_line(write):
    text = (
        "task_name: cola\nmethod: looksam\nmethod_args:\n  k: 3\nperturbation: asam\nperturbation_args: {eta: 0.1}\n"
    )
    recipe = write("looksam.yaml", text)
    sam = parse(recipe)[2]
    assert (sam.method_options.k, sam.method_options.alpha) == (3, 0.2)
    assert sam.perturbation_options.eta == 0.1
    assert parse(recipe, "--method_args", '{"k": 4}')[2].method_options.k == 4
    with pytest.raises(ValueError, match=r"SAMConfig\.method_args of method 'looksam': unknown option 'kk'; did you"):
        parse(recipe, "--method_args", '{"kk": 4}')


def test_a_flag_of_the_command_line_beats_the_yaml_in_both_directions(write):
    recipe = write("recipe.yaml", "task_name: cola\nsame_dropout_mask: true\ndo_train: true\n")
    _, training, sam = parse(recipe, "--no_same_dropout_mask", "--do_train", "false")
    assert (sam.same_dropout_mask, training.do_train) == (False, False)


@pytest.mark.parametrize(
    ("option", "nearest"), [("rhoo", "rho"), ("learning-rat", "learning_rate"), ("maxlength", "max_length")]
)
def test_an_unknown_option_on_the_command_line_names_the_nearest(option, nearest):
    with pytest.raises(ValueError, match=f"{option.replace('-', '_')}'; did you mean '{nearest}'"):
        parse("--task_name", "cola", f"--{option}", "1")


def test_an_unknown_option_in_a_file_names_file_and_nearest(write):
    write("base.yaml", "sampa_lamda: 0.1\n")
    with pytest.raises(ValueError, match=r"base\.yaml: unknown option 'sampa_lamda'; did you mean 'sampa_lambda'"):
        parse(write("sampa.yaml", "base: base.yaml\ntask_name: cola\n"))


def test_options_cannot_be_abbreviated():
    with pytest.raises(ValueError, match="unknown option 'learning'"):
        parse("--task_name", "cola", "--learning", "1")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rho: 0.1\nrho: 0.2\n", "rho given more than once"),
        ("- rho\n", "must hold lines of the form"),
        ("", "must hold lines of the form"),
        ("rho: [1\n", "not a YAML file"),
        ("base: recipe.yaml\n", "is its own base"),
        ("base: gone.yaml\n", r"gone\.yaml: no such recipe file; the folder has: recipe\.yaml"),
        ("rho: much\ntask_name: cola\n", "argument --rho: invalid float value: 'much'"),
        ("method: asam\ntask_name: cola\n", "argument --method: invalid choice: 'asam'"),
        ("rho: -1\ntask_name: cola\n", "rho=-1.0"),
        ("rho: 0.1\n", "required: --task_name"),
    ],
)
def test_a_broken_recipe_is_one_clear_error(write, text, message):
    with pytest.raises(ValueError, match=message):
        parse(write("recipe.yaml", text))


def test_recipe_files_stand_first(write):
    with pytest.raises(ValueError, match="recipe files stand before the first --option"):
        parse("--rho", "0.1", write("recipe.yaml", "task_name: cola\n"), "--task_name", "cola")
    with pytest.raises(ValueError, match="mrpc: unexpected value"):
        parse("mrpc", "--task_name", "cola")
