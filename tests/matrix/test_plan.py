"""From a command line to runs: each with its own options, and every mistake before the first of them starts."""

import argparse
import dataclasses
from pathlib import Path

import pytest
import yaml
from hf_sam_recipes.matrix.rho import RHO_GRID, choose_rho, require_no_other_choice, write_rho

from hf_sam_recipes.benchmarks.cifar import CIFAR
from hf_sam_recipes.benchmarks.glue import GLUE, TASKS
from hf_sam_recipes.matrix.command_line import run_main
from hf_sam_recipes.matrix.plan import Planner, parse_overrides, read_rho
from hf_sam_recipes.matrix.records import RecordStore
from hf_sam_recipes.matrix.runner import MatrixRunner

from ..conftest import REPOSITORY
from .made_records import made_record


@pytest.fixture
def planner(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "some-model").mkdir()

    def build(*extra: str, benchmark=GLUE, **changed) -> Planner:
        options = {
            "model": f"{tmp_path}/some-model/",
            "data_dir": str(tmp_path / "data"),
            "epochs": None,
            "nproc_per_node": 1,
            "sharpness_examples": 64,
            "ascent_steps": 5,
            "hessian_iterations": 20,
        }
        return Planner(benchmark, argparse.Namespace(**(options | changed)), parse_overrides(extra))

    return build


def value_of(run, option: str) -> str | None:
    """The last value of an option in the command, which is the one that counts."""
    values = [a.partition("=")[2] for a in run.command if a.startswith(f"--{option}=")]
    return values[-1] if values else None


def test_overrides():
    tokens = ["--max_length", "64", "--bf16", "--learning_rate=-1e-5", "--optim", "adamw_torch"]
    expected = {"max_length": "64", "bf16": "true", "learning_rate": "-1e-5", "optim": "adamw_torch"}
    assert parse_overrides(tokens) == expected
    with pytest.raises(ValueError, match=r"64: unexpected value"):
        parse_overrides(["--max_length", "32", "64"])
    for spelling in ("--num_train_epochs", "--num-train-epochs", "--max_steps"):
        with pytest.raises(ValueError, match=r"--(num_train_epochs|max_steps) cannot .* use --epochs"):
            parse_overrides([spelling, "3"])
    for option in ("--eval_strategy=no", "--load_best_model_at_end", "--do_eval=false"):
        with pytest.raises(ValueError, match="cannot be passed to every run alike: use nothing"):
            parse_overrides([option])


def test_unknown_options_tasks_and_methods_are_named_with_the_nearest(planner, tmp_path):
    with pytest.raises(ValueError, match=r"unknown option 'max_lenght'; did you mean 'max_length'"):
        planner("--max_lenght", "64")
    with pytest.raises(ValueError, match=r"expected .*int.*|invalid int value: 'many'"):
        planner("--max_length", "many")
    with pytest.raises(ValueError, match=r"task 'colla': did you mean 'cola'"):
        planner().run("colla", "sam", 1)
    with pytest.raises(ValueError, match=r"method 'sampa-01': did you mean 'sampa-0.1'"):
        planner().run("cola", "sampa-01", 1)
    with pytest.raises(ValueError, match=r"nowhere': no such folder"):
        planner(data_dir=str(tmp_path / "nowhere"))


def test_twice_the_epochs_stay_twice_the_epochs(planner):
    plan = planner(epochs=3.0)
    for task in ("cola", "mrpc"):
        epochs = {method: value_of(plan.run(task, method, 1), "num_train_epochs") for method in GLUE.methods}
        assert epochs == {"adamw": "3", "adamw-2x": "6", "sam": "3", "sampa-0": "3", "sampa-0.1": "3"}


def test_only_what_perturbs_has_a_rho(planner):
    plan = planner()
    assert [plan.run("cola", method, 1, rho=0.2).rho for method in GLUE.methods] == [None, None, 0.2, 0.2, 0.2]
    assert value_of(plan.run("cola", "sam", 1, rho=0.2), "rho") == "0.2"
    assert value_of(plan.run("cola", "adamw", 1, rho=0.2), "rho") is None
    recipe = yaml.safe_load((Path(__file__).parents[2] / "recipes/glue/base.yaml").read_text())
    assert plan.run("cola", "sam", 1).rho == recipe["rho"]
    assert planner("--rho", "0.3").run("cola", "sam", 1).rho == 0.3


def test_a_record_says_nothing_of_the_machine(planner, tmp_path):
    run = planner("--max_length", "64").run("cola", "sam", 7)
    assert run.name == "cola/sam/seed-7"
    assert run.settings["model"] == "some-model"
    assert str(tmp_path) not in f"{run.shown_command} {run.settings}"
    assert value_of(run, "model_name_or_path") == f"{tmp_path}/some-model/"
    for part in ("recipes/run_glue.py recipes/glue/cola/sam.yaml", "--seed=7", "--max_length=64"):
        assert part in run.shown_command


def test_a_record_names_a_model_of_the_repository_by_its_place(planner):
    folder = "recipes/cifar/small_vit"
    plan = planner(benchmark=CIFAR, model=str(REPOSITORY / folder))
    assert f" --model_name_or_path={folder} " in plan.run("cifar10", "sam", 1).shown_command
    assert plan.settings()["model"] == "small_vit"


def test_images_are_planned_like_sentences(planner, tmp_path):
    plan = planner("--label_noise", "0.4", benchmark=CIFAR, epochs=3.0)
    runs = {method: plan.run("cifar100", method, 2, rho=0.1) for method in CIFAR.methods}
    shown = runs["sam"].shown_command
    assert shown.startswith(
        "python recipes/run_cifar.py recipes/cifar/cifar100/sam.yaml --model_name_or_path=some-model"
    )
    assert "--label_noise=0.4" in shown
    assert str(tmp_path) not in shown
    assert value_of(runs["sampa-0.2"], "rho") == "0.1"
    assert value_of(runs["sam"], "recipe") == "run_cifar"
    assert {m: value_of(run, "num_train_epochs") for m, run in runs.items()} == dict.fromkeys(runs, "3") | {
        "adamw-2x": "6"
    }
    with pytest.raises(ValueError, match=r"unknown option 'crop_pading'; did you mean 'crop_padding'"):
        planner("--crop_pading", "2", benchmark=CIFAR)
    with pytest.raises(ValueError, match=r"--dataset_name cannot .* use --tasks"):
        planner("--dataset_name", "cifar10", benchmark=CIFAR)


def test_two_processes_are_for_pairs(planner):
    plan = planner(nproc_per_node=2)
    assert "torch.distributed.run" in plan.run("cola", "sampa-0", 1).command
    assert plan.run("cola", "sampa-0", 1).shown_command.startswith("torchrun --standalone --nproc_per_node 2 recipes/")
    for method in ("adamw", "sam"):
        assert "torch.distributed.run" not in plan.run("cola", method, 1).command


def test_a_folder_takes_runs_of_one_setting(planner, tmp_path):
    store = RecordStore(tmp_path / "records")
    store.write("cola/sam/seed-1", made_record("cola", "sam", 1))
    with pytest.raises(ValueError, match=r"some-model.*Give another --runs_dir"):
        MatrixRunner([planner().run("cola", "sam", 2)], store)
    settings = made_record("cola", "sam", 1)["meta_info"]["settings"]
    run = dataclasses.replace(planner().run("cola", "sam", 1, rho=0.2), settings=settings)
    with pytest.raises(ValueError, match=r"was made with sam and rho 0.05, but now it is sam and rho 0.2"):
        MatrixRunner([run], store)
    with pytest.raises(ValueError, match=r"was made with sam .* but now it is sampa"):
        MatrixRunner([dataclasses.replace(run, method="sampa-0", rho=0.05)], store)
    with pytest.raises(ValueError, match="more than once"):
        MatrixRunner([planner().run("cola", "sam", 2)] * 2, RecordStore(tmp_path / "other"))


def test_status_starts_nothing(tmp_path, capsys):
    record = made_record("cola", "sam", 1)
    RecordStore(tmp_path).write("cola/sam/seed-1", record)
    command = ["--model", "tiny", "--tasks", "cola", "--methods", "adamw", "sam", "--seeds", "1", "2", "--status"]
    with pytest.raises(ValueError, match="Give another --runs_dir"):
        run_main(GLUE, [*command, "--runs_dir", str(tmp_path)])
    command += ["--epochs", "2", "--max_length", "64"]
    assert run_main(GLUE, [*command, "--runs_dir", str(tmp_path)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [["cola", "adamw", "missing", "1,", "2"], ["cola", "sam", "finished", "1;", "missing", "2"]]


def candidate(rho: float, metric: float | None, loss: float | None) -> dict:
    record = made_record("cola", "sam", 1) | {"rho": rho}
    record["train_info"]["metrics"] = {"matthews_correlation": metric, "loss": loss}
    return record


def test_rho_is_chosen_by_metric_then_loss_then_size():
    task = TASKS[0]
    tried = [candidate(0.2, 0.5, 0.4), candidate(0.01, 0.4, 0.1), candidate(0.1, 0.5, 0.3)]
    tried.append(candidate(0.02, None, None))
    choice = choose_rho(task, tried)
    assert choice.rho == 0.1
    assert [rho for rho, *_ in choice.tried] == [0.01, 0.02, 0.1, 0.2]
    assert choose_rho(task, [candidate(0.2, 0.5, 0.3), candidate(0.1, 0.5, 0.3)]).rho == 0.1
    with pytest.raises(ValueError, match=r"cola: the runs with rho 0.2 failed"):
        choose_rho(task, [candidate(0.2, 0.5, 0.3) | {"status": "failed"}])
    with pytest.raises(ValueError, match="no rho gave a finite loss"):
        choose_rho(task, tried[-1:])


def test_the_choice_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "recipes" / "chosen.yaml"
    choice = choose_rho(TASKS[0], [candidate(0.02, 0.25, 0.5), candidate(0.1, 0.5, 0.3)])
    settings = {"model": "tiny", "epochs": 2.0, "options": {"holdout": "0.1", "label_noise": "0.4"}}
    write_rho(path, settings, {"cola": choice}, argparse.Namespace(method="sam", seed=1, holdout=0.1))
    assert "# With epochs 2.0, label_noise 0.4.\n" in path.read_text()
    assert read_rho(path, "tiny", ["cola"]) == {"cola": 0.1}
    assert "#   0.02: 0.2500 (0.5000)\n" in path.read_text()
    require_no_other_choice(path, ["rte", "cola"])
    with pytest.raises(ValueError, match=r"a rho for cola too, which would be lost: add them to --tasks"):
        require_no_other_choice(path, ["rte"])
    with pytest.raises(ValueError, match=r"no rho for rte"):
        read_rho(path, "tiny", ["cola", "rte"])
    with pytest.raises(ValueError, match=r"chosen for tiny, not for large"):
        read_rho(path, "large", ["cola"])


# Benchmark, model, file of the choice, radii tried, part held out, tasks in the order of the benchmark.
CHOICES = [
    (GLUE, "all-MiniLM-L6-v2", "glue/minilm.yaml", list(RHO_GRID), "0.1", ["cola", "mrpc", "stsb", "rte"]),
    (CIFAR, "small_vit_patch8", "cifar/small_vit_patch8.yaml", [0.02, 0.05, 0.1], "0.9", ["cifar10"]),
]


@pytest.mark.parametrize(("benchmark", "model", "file", "radii", "holdout", "tasks"), CHOICES)
def test_the_committed_choice_is_that_of_the_committed_records(benchmark, model, file, radii, holdout, tasks):
    records = RecordStore(REPOSITORY / benchmark.folder / "rho_choice" / model).read_all()
    chosen = {}
    for task in benchmark.tasks:
        tried = [record for record in records if record["task"] == task.name]
        if tried:
            assert sorted(record["rho"] for record in tried) == radii
            # A part of the training sample, not what is reported on.
            assert {record["meta_info"]["settings"]["options"]["holdout"] for record in tried} == {holdout}
            chosen[task.name] = choose_rho(task, tried).rho
    assert list(chosen) == tasks
    assert read_rho(REPOSITORY / "recipes" / file, model, tasks) == chosen
