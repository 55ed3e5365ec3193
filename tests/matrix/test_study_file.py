"""A study says once what its runs have in common, and a mistake in it is named before anything runs."""

import pytest

from hf_sam_recipes.benchmarks.cifar import CIFAR
from hf_sam_recipes.benchmarks.glue import GLUE
from hf_sam_recipes.matrix.choice import best_value, read_trials
from hf_sam_recipes.matrix.command_line import run_main
from hf_sam_recipes.matrix.plan import Planner
from hf_sam_recipes.matrix.records import RecordStore
from hf_sam_recipes.matrix.study_file import find_study, read_study

from ..conftest import REPOSITORY
from .studies import study_file, write_study_file


CHOICE = {"option": "rho", "values": [0.02, 0.1], "with": "sam", "for": ["sam"], "options": {"holdout": 0.1}}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"taskss": ["cola"]}, r"key 'taskss': did you mean 'tasks'\?"),
        ({"seeds": None}, "seeds missing"),
        ({"seeds": ["one"]}, r"seeds \['one'\] must be a list of whole numbers"),
        ({"epochs": "many"}, "epochs 'many' must be a number"),
        ({"tasks": "cola"}, "tasks 'cola' must be a list of names, or a mapping"),
        ({"options": ["bf16"]}, "options .* must be a mapping"),
        ({"nproc_per_node": 3}, "nproc_per_node=3: must be 1 or 2"),
        ({"choose": [CHOICE | {"value": 1}]}, r"choose: key 'value': did you mean 'values'\?"),
        ({"choose": [CHOICE | {"for": ["sampa"]}]}, r"choose: method 'sampa': did you mean 'sampa-0"),
        ({"choose": [CHOICE | {"options": {}}]}, "rho is chosen on held-out training examples, never on"),
        ({"choose": ["rho"]}, "'rho' must be a mapping with option, values, with, for"),
        ({"choose": "other", "tasks": ["sst2"]}, "other has chosen nothing for task 'sst2'"),
        ({"choose": "othr"}, r"study 'othr': did you mean 'other'\?"),
        ({"base": "nowhere.yaml"}, "nowhere.yaml: cannot be read"),
    ],
)
def test_a_mistake_is_named(keys, message, tmp_path):
    write_study_file(tmp_path, "other")
    with pytest.raises(ValueError, match=message):
        study_file(tmp_path, **keys)


def test_a_method_beats_a_task_which_beats_the_study(tmp_path):
    study = study_file(
        tmp_path,
        options={"max_length": 64, "bf16": True, "label_noise": 0.3},
        tasks={"cola": {"max_length": 32}, "rte": None},
        methods={"adamw": {"bf16": False, "label_noise": "null"}, "late": {"recipe": "sam", "max_length": 16}},
    )
    assert study.options_of("rte", "adamw") == {"max_length": "64", "bf16": "false"}
    assert study.options_of("cola", "late") == {"max_length": "16", "bf16": "true", "label_noise": "0.3"}
    assert [study.recipe(method) for method in study.methods] == ["adamw", "sam"]
    assert study.with_overrides({"max_length": "8"}, 1.0).options_of("cola", "late")["max_length"] == "8"
    assert study.settings("cola", "late", {"rho": "0.1", "learning_rate": "1e-4"}) == {
        "model": "tiny",
        "epochs": 2.0,
        "sharpness_examples": 64,
        "ascent_steps": 5,
        "hessian_iterations": 20,
        # rho has a place of its own in a record.
        "options": {"bf16": "true", "label_noise": "0.3", "learning_rate": "1e-4", "max_length": "16"},
    }


def test_a_base_says_what_studies_share(tmp_path):
    write_study_file(tmp_path, "base", options={"bf16": True, "max_length": 64}, notes="- One.", choose=[CHOICE])
    path = tmp_path / "studies" / "study.yaml"
    path.write_text("base: base.yaml\nseeds: [7]\noptions: {max_length: null}\nnotes: '- Two.'\n")
    study = read_study(path)
    assert (study.seeds, study.title, study.notes) == ((7,), "A study", "- One.\n- Two.")
    assert study.options_of("cola", "sam") == {"bf16": "true"}
    # The records of trials belong to the study that has made them.
    assert [choice.records for choice in study.choose] == ["choices/study/sam"]


def test_trials_are_runs_of_the_study_on_held_out_examples(tmp_path):
    given = {"holdout": 400, "holdout_beside": True, "max_length": 64}
    study = study_file(tmp_path, options=given, choose=[CHOICE | {"options": {"max_length": "null"}}])
    ((trial, choice),) = study.choices()
    assert trial.settings("cola", "sam", {"rho": "0.1"})["options"] == {"holdout": "400"}
    assert (trial.sharpness_examples, trial.epochs) == (0, 2.0)
    assert choice.trial("cola", "0.02") == "cola/rho-0.02/seed-1"
    # Not of a choice: the methods that it is not for, and what is given.
    assert list(study.part(None, ["adamw"], None).choices()) == []
    assert list(study.with_overrides({"rho": "0.3"}, None).choices()) == []


def test_another_study_may_have_chosen(tmp_path):
    write_study_file(tmp_path, "first", choose=[CHOICE], options={"learning_rate": "1e-4"})
    study = read_study(write_study_file(tmp_path, "second", choose="first", methods=["adamw", "sam"]))
    ((trial, choice),) = study.part(["rte"], ["sam"], [1]).choices()
    assert (trial.name, trial.options["learning_rate"]) == ("first", "1e-4")
    assert choice.records == "choices/first/sam"


STUDIES = [
    (benchmark, path.stem)
    for benchmark in (GLUE, CIFAR)
    for path in sorted((REPOSITORY / benchmark.folder / "studies").glob("*.yaml"))
]


@pytest.mark.parametrize(("benchmark", "name"), STUDIES)
def test_every_study_can_be_run(benchmark, name):
    study = find_study(REPOSITORY / benchmark.folder / "studies", name)
    planner = Planner(benchmark)
    runs = planner.table(study, lambda choice, task: choice.values[0])
    assert len(runs) == len(study.tasks) * len(study.methods) * len(study.seeds)
    for chooser, choice in study.choices():
        trials = planner.trials(chooser, choice, study.tasks)
        assert len({run.name for run in trials}) == len(study.tasks) * len(choice.values)


@pytest.mark.parametrize("name", ["overfitting", "wrong-labels"])
def test_the_baseline_is_tuned_as_much_as_what_is_compared_with_it(name):
    study = find_study(REPOSITORY / "glue_runs" / "studies", name)
    for method in study.methods:
        assert sum(len(choice.values) for _, choice in study.choices() if method in choice.methods) == 4
    # The examples that a trial trains on are those that the study trains on.
    for chooser, _ in study.choices():
        for key in ("holdout", "max_train_samples", "label_noise"):
            for task in study.tasks:
                assert chooser.options_of(task, "sam").get(key) == study.options_of(task, "sam").get(key)


RUN = [(GLUE, "low-data"), (CIFAR, "memorising"), (CIFAR, "label-noise-40"), (CIFAR, "clean")]


@pytest.mark.parametrize(("benchmark", "name"), RUN)
def test_the_committed_records_are_those_of_the_study(benchmark, name, capsys):
    """Its settings, and the rho that the committed trials choose."""
    assert run_main(benchmark, [name, "--status"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines
    assert not any("missing" in line or "failed" in line for line in lines)
    folder = REPOSITORY / benchmark.folder
    study = find_study(folder / "studies", name)
    tasks = {task.name: task for task in benchmark.tasks}
    for chooser, choice in study.choices():
        for record in RecordStore(folder / choice.records).read_all().values():
            # A part of the training sample, not what is reported on.
            assert record["meta_info"]["settings"]["options"]["holdout"] == chooser.overrides["holdout"]
        for record in RecordStore(folder / "results" / name).read_all().values():
            if record["method"] in choice.methods:
                task = tasks[record["task"]]
                assert f"{record['rho']:g}" == best_value(choice, read_trials(task, choice, folder))
