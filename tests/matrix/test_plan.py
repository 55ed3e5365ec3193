"""From a study to runs: each with its own options, and every mistake before the first of them starts."""

import dataclasses
from pathlib import Path

import pytest
import yaml

from hf_sam_recipes.benchmarks.cifar import CIFAR
from hf_sam_recipes.benchmarks.glue import GLUE, TASKS
from hf_sam_recipes.matrix.choice import best_value, read_trials
from hf_sam_recipes.matrix.command_line import run_main
from hf_sam_recipes.matrix.plan import Planner, parse_overrides
from hf_sam_recipes.matrix.records import RecordStore
from hf_sam_recipes.matrix.runner import MatrixRunner

from ..conftest import REPOSITORY
from .made_records import made_record
from .studies import study_file, write_study_file


SAM = {"option": "rho", "values": [0.02, 0.1, 0.2], "with": "sam", "for": ["sam"], "options": {"holdout": 0.1}}


@pytest.fixture
def plan(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "some-model").mkdir()

    def run(task, method, seed=1, chosen=None, benchmark=GLUE, data_dir=tmp_path / "data", **keys):
        keys = {"model": "some-model", "epochs": None, "tasks": list({"cola": 1, task: 1})} | keys
        planner = Planner(benchmark, f"{tmp_path}/some-model/", str(data_dir))
        return planner.run(study_file(tmp_path, **keys), task, method, seed, chosen or {})

    return run


def value_of(run, option: str) -> str | None:
    """The last value of an option in the command, which is the one that counts."""
    values = [a.partition("=")[2] for a in run.command if a.startswith(f"--{option}=")]
    return values[-1] if values else None


def test_overrides():
    tokens = ["--max_length", "64", "--bf16", "--learning_rate=-1e-5", "--optim", "adamw_torch", "--max-steps", "3"]
    expected = {"max_length": "64", "bf16": "true", "learning_rate": "-1e-5", "optim": "adamw_torch", "max_steps": "3"}
    assert parse_overrides(tokens) == expected
    with pytest.raises(ValueError, match=r"64: unexpected value"):
        parse_overrides(["--max_length", "32", "64"])


def test_what_the_runner_sets_is_not_an_option(plan):
    for option in ("num_train_epochs", "max_steps"):
        with pytest.raises(ValueError, match=rf"{option} cannot be set for every run alike: use epochs"):
            plan("cola", "sam", options={option: 3})
    for option in ("load_best_model_at_end", "do_eval"):
        with pytest.raises(ValueError, match="cannot be set for every run alike: use nothing"):
            plan("cola", "sam", options={option: False})
    # But a method may train for as long as it likes.
    own = plan("cola", "long", epochs=3, methods={"long": {"recipe": "sam", "num_train_epochs": 7}})
    assert value_of(own, "num_train_epochs") == "7"


def test_unknown_options_tasks_and_methods_are_named_with_the_nearest(plan, tmp_path):
    with pytest.raises(ValueError, match=r"unknown option 'max_lenght'; did you mean 'max_length'"):
        plan("cola", "sam", options={"max_lenght": 64})
    with pytest.raises(ValueError, match=r"expected .*int.*|invalid int value: 'many'"):
        plan("cola", "sam", options={"max_length": "many"})
    with pytest.raises(ValueError, match=r"task 'colla': did you mean 'cola'"):
        plan("colla", "sam")
    with pytest.raises(ValueError, match=r"method 'sampa-01': did you mean 'sampa-0.1'"):
        plan("cola", "sampa-01", methods=["sampa-01"])
    with pytest.raises(ValueError, match=r"nowhere': no such folder"):
        plan("cola", "sam", data_dir=tmp_path / "nowhere")
    with pytest.raises(ValueError, match="study is about other-model: give a study its own file"):
        plan("cola", "sam", model="other-model")


def test_twice_the_epochs_stay_twice_the_epochs(plan):
    for task in ("cola", "mrpc"):
        epochs = {method: value_of(plan(task, method, epochs=3), "num_train_epochs") for method in GLUE.methods}
        assert epochs == {"adamw": "3", "adamw-2x": "6", "sam": "3", "sampa-0": "3", "sampa-0.1": "3"}


def test_only_what_perturbs_has_a_rho(plan):
    runs = [plan("cola", method, options={"rho": 0.2}) for method in GLUE.methods]
    assert [run.rho for run in runs] == [None, None, 0.2, 0.2, 0.2]
    assert [value_of(run, "rho") for run in runs] == [None, None, "0.2", "0.2", "0.2"]
    recipe = yaml.safe_load((REPOSITORY / "recipes/glue/base.yaml").read_text())
    assert plan("cola", "sam").rho == recipe["rho"]
    chosen = plan("cola", "sam", chosen={"rho": "0.3", "learning_rate": "1e-4"})
    assert (chosen.rho, value_of(chosen, "learning_rate")) == (0.3, "1e-4")
    assert chosen.settings["options"] == {"learning_rate": "1e-4", "max_length": "64"}
    with pytest.raises(ValueError, match="'adamw' does not perturb, so it has no rho"):
        plan("cola", "adamw", chosen={"rho": "0.3"})


def test_a_record_says_nothing_of_the_machine(plan, tmp_path):
    run = plan("cola", "sam", 7)
    assert run.name == "cola/sam/seed-7"
    assert run.settings["model"] == "some-model"
    assert str(tmp_path) not in f"{run.shown_command} {run.settings}"
    assert value_of(run, "model_name_or_path") == f"{tmp_path}/some-model/"
    for part in ("recipes/run_glue.py recipes/glue/cola/sam.yaml", "--seed=7", "--max_length=64", "=some-model "):
        assert part in run.shown_command


def test_a_model_of_the_repository_is_found_from_anywhere(tmp_path):
    folder = "recipes/cifar/small_vit"
    study = study_file(tmp_path, model=folder, tasks=["cifar10"], options={})
    run = Planner(CIFAR).run(study, "cifar10", "sam", 1, {})
    assert value_of(run, "model_name_or_path") == str(REPOSITORY / folder)
    assert f" --model_name_or_path={folder} " in run.shown_command
    assert run.settings["model"] == "small_vit"


def test_images_are_planned_like_sentences(plan, tmp_path):
    keys = {"benchmark": CIFAR, "methods": list(CIFAR.methods), "options": {"label_noise": 0.4}, "epochs": 3}
    runs = {method: plan("cifar100", method, 2, **keys) for method in CIFAR.methods}
    shown = runs["sam"].shown_command
    assert shown.startswith(
        "python recipes/run_cifar.py recipes/cifar/cifar100/sam.yaml --model_name_or_path=some-model"
    )
    assert "--label_noise=0.4" in shown
    assert str(tmp_path) not in shown
    assert value_of(runs["sam"], "recipe") == "run_cifar"
    assert {m: value_of(run, "num_train_epochs") for m, run in runs.items()} == dict.fromkeys(runs, "3") | {
        "adamw-2x": "6"
    }
    with pytest.raises(ValueError, match=r"unknown option 'crop_pading'; did you mean 'crop_padding'"):
        plan("cifar10", "sam", **keys | {"options": {"crop_pading": 2}})
    with pytest.raises(ValueError, match=r"dataset_name cannot .* use tasks"):
        plan("cifar10", "sam", **keys | {"options": {"dataset_name": "cifar10"}})


def test_options_in_a_mapping_reach_the_recipe_as_json(plan):
    run = plan("cola", "sam", options={"lr_scheduler_kwargs": {"num_cycles": 2}})
    assert value_of(run, "lr_scheduler_kwargs") == '{"num_cycles": 2}'


def test_two_processes_are_for_pairs(plan):
    run = plan("cola", "sampa-0", nproc_per_node=2)
    assert "torch.distributed.run" in run.command
    assert run.shown_command.startswith("torchrun --standalone --nproc_per_node=2 recipes/")
    for method in ("adamw", "sam"):
        assert "torch.distributed.run" not in plan("cola", method, nproc_per_node=2).command


def test_a_folder_takes_runs_of_one_setting(plan, tmp_path):
    store = RecordStore(tmp_path / "records")
    record = made_record("cola", "sam", 1)
    store.write("cola/sam/seed-1", record)
    with pytest.raises(ValueError, match=r"made with epochs 2.0, model tiny.*now it is epochs None, model some-model"):
        MatrixRunner([plan("cola", "sam", options={"max_length": 64})], store)
    run = dataclasses.replace(plan("cola", "sam", chosen={"rho": "0.2"}), settings=record["meta_info"]["settings"])
    with pytest.raises(ValueError, match=r"was made with rho 0.05, but now it is rho 0.2"):
        MatrixRunner([run], store)
    with pytest.raises(ValueError, match=r"was made with method sam, but now it is method sampa-0"):
        MatrixRunner([dataclasses.replace(run, method="sampa-0", rho=0.05)], store)
    with pytest.raises(ValueError, match="more than once"):
        MatrixRunner([run] * 2, RecordStore(tmp_path / "other"))


def test_status_starts_nothing(tmp_path, capsys):
    path = write_study_file(tmp_path, tasks=["cola"], methods=["adamw", "sam"], seeds=[1, 2, 3])
    RecordStore(tmp_path / "results" / "study").write("cola/sam/seed-1", made_record("cola", "sam", 1))
    command = [str(path), "--folder", str(tmp_path), "--status", "--seeds", "1", "2"]
    with pytest.raises(ValueError, match="Give the new settings a study of their own"):
        run_main(GLUE, [*command, "--max_length", "32"])
    assert run_main(GLUE, command) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [["cola", "adamw", "missing", "1,", "2"], ["cola", "sam", "finished", "1;", "missing", "2"]]
    with pytest.raises(ValueError, match=r"study: seeds '4': .*There are 1, 2, 3\."):
        run_main(GLUE, [*command[:-2], "4"])


def test_other_settings_need_another_folder():
    with pytest.raises(ValueError, match=r"max_length: low-data has it otherwise.*give --folder another place"):
        run_main(GLUE, ["low-data", "--max_length", "32"])
    with pytest.raises(ValueError, match=r"study 'low-date': did you mean 'low-data'\?"):
        run_main(GLUE, ["low-date"])


def test_rho_is_chosen_by_metric_then_loss_then_place(tmp_path):
    ((_, choice),) = study_file(tmp_path, choose=[SAM]).choices()
    assert best_value(choice, {"0.02": (0.4, 0.1), "0.1": (0.5, 0.3), "0.2": (0.5, 0.4)}) == "0.1"
    assert best_value(choice, {"0.02": (0.4, 0.1), "0.1": (0.5, 0.3), "0.2": (0.5, 0.3)}) == "0.1"
    # One that diverged loses.
    assert best_value(choice, {"0.02": (0.4, 0.1), "0.1": (None, None), "0.2": (0.9, None)}) == "0.02"
    assert best_value(choice, dict.fromkeys(choice.values, (None, None))) is None
    assert best_value(choice, {"0.02": (0.4, 0.1), "0.1": (0.5, 0.3)}) is None


def trial(folder: Path, value: str, metric: float, **changed) -> None:
    record = made_record("cola", "sam", 1) | changed
    record["train_info"]["metrics"] = {"matthews_correlation": metric, "loss": 0.5}
    RecordStore(folder / "choices" / "study" / "sam").write(f"cola/rho-{value}/seed-1", record)


def test_a_choice_is_read_from_its_trials(tmp_path):
    ((_, choice),) = study_file(tmp_path, choose=[SAM]).choices()
    for value, metric in (("0.02", 0.25), ("0.1", 0.5)):
        trial(tmp_path, value, metric)
    trial(tmp_path, "0.2", 1.0, status="failed")
    trials = read_trials(TASKS[0], choice, tmp_path)
    assert trials == {"0.02": (0.25, 0.5), "0.1": (0.5, 0.5)}
    # A trial that has failed may have been the best.
    assert best_value(choice, trials) is None
