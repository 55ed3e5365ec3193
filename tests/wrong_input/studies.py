"""Wrong study files, wrong command lines of the runner, and broken records."""

import json
from pathlib import Path

from ..matrix.made_records import SETTINGS, made_record
from ..matrix.studies import write_study_file


RUN = "glue_runs/run.py {tmp}/studies/study.yaml --folder {tmp}/new --data_dir {glue}"
REPORT = "glue_runs/report.py --folder {tmp}"
CHOICE = {"option": "rho", "values": [0.01, 0.1], "with": "sam", "for": ["sam"], "options": {"holdout": 0.1}}


def study(**keys):
    return lambda tmp, places: write_study_file(tmp, **keys)


def content(text: str | bytes, name: str = "study"):
    def make(tmp, places):
        path = write_study_file(tmp, name)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())

    return make


def chosen(**changes):
    return study(choose=[CHOICE | changes])


def _reported(tmp: Path) -> Path:
    """A study with plots, a report and two records; returns one of these."""
    write_study_file(tmp)
    (tmp / "plots").mkdir()
    (tmp / "plots" / "study-metric.png").write_bytes(b"drawn before")
    (tmp / "README.md").write_text("written before")
    for method in ("adamw", "sam"):
        path = tmp / "results" / "study" / "cola" / method / "seed-1.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(made_record("cola", method, 1)))
    return path


def record(change):
    """Changes what the record holds, in place or by what it returns."""

    def make(tmp, places):
        path = _reported(tmp)
        there = json.loads(path.read_text())
        changed = change(there)
        path.write_text(json.dumps(there if changed is None else changed))

    return make


def record_file(content: bytes | None):
    def make(tmp, places):
        path = _reported(tmp)
        path.unlink()
        path.mkdir() if content is None else path.write_bytes(content)

    return make


def recorded_run(content: str | None):
    """What lies where the runner would write the record of its first run."""

    def make(tmp, places):
        write_study_file(tmp, methods=["sam"], tasks=["mrpc"])
        path = tmp / "new" / "results" / "study" / "mrpc" / "sam" / "seed-1.json"
        path.parent.mkdir(parents=True)
        path.mkdir() if content is None else path.write_text(content)

    return make


def without(way: str):
    def change(there):
        *steps, last = way.split(".")
        for step in steps:
            there = there[step]
        del there[last]

    return change


def with_value(way: str, value):
    def change(there):
        *steps, last = way.split(".")
        for step in steps:
            there = there[step]
        there[last] = value

    return change


def readme_folder(tmp, places):
    _reported(tmp)
    (tmp / "README.md").unlink()
    (tmp / "README.md").mkdir()


def plots_file(tmp, places):
    write_study_file(tmp)
    (tmp / "plots").write_text("")


SEED = r"sam/seed-1\.json"
# Kind, command, what is written, what the line must say.
STUDY_FILES = [
    (study(seed=[1]), r"study\.yaml: key 'seed': did you mean 'seeds'"),
    (study(model=None), r"study\.yaml: model missing"),
    (study(title=None, question=None), r"study\.yaml: question, title missing"),
    (study(tasks=["mrcp"]), "task 'mrcp': did you mean 'mrpc'"),
    (study(methods=["samm"]), "method 'samm': did you mean 'sam"),
    (study(tasks=[]), r"study\.yaml: tasks must have at least one"),
    (study(methods=[]), r"study\.yaml: methods must have at least one"),
    (study(seeds=[]), r"study\.yaml: seeds must have at least one"),
    (study(seeds=[1, 1]), r"study\.yaml: seeds \[1, 1\] must be from 0, each of them once"),
    (study(seeds=[-1]), r"study\.yaml: seeds \[-1\] must be from 0"),
    (study(seeds=["one"]), r"study\.yaml: seeds \['one'\] must be a list of whole numbers"),
    (study(seeds=3), r"study\.yaml: seeds '3' must be a list of whole numbers"),
    (study(epochs=0), r"study\.yaml: epochs 0\.0 must be above 0"),
    (study(epochs=-2), r"study\.yaml: epochs -2\.0 must be above 0"),
    (study(epochs="nan"), r"study\.yaml: epochs nan must be above 0"),
    (study(epochs="many"), r"study\.yaml: epochs 'many' must be a number"),
    (study(nproc_per_node=3), r"study\.yaml: nproc_per_node=3: must be 1 or 2"),
    (study(sharpness_examples=-1), r"study\.yaml: sharpness_examples -1 must be at least 0"),
    (study(ascent_steps="few"), r"study\.yaml: ascent_steps 'few' must be a whole number"),
    (study(options={"rhoo": 1}), "unknown option 'rhoo'; did you mean 'rho'"),
    (study(options={"seed": 1}), "seed cannot be set for every run alike: use seeds"),
    (study(options={"hub_token": "hf_secret"}), "hub_token cannot be set .*HF_TOKEN"),
    (study(options={"max_length": "long"}), "max_length.*'long'"),
    (study(options=[1]), r"study\.yaml: options \['1'\] must be a mapping"),
    (study(options="max_length"), r"study\.yaml: options 'max_length' must be a mapping"),
    (study(tasks={"cola": {"rhoo": 1}}), "unknown option 'rhoo'"),
    (study(choose="gone"), "study 'gone': There are|did you mean"),
    (study(choose={"a": 1}), r"study\.yaml: choose .* must be a list"),
    (study(choose=["rho"]), r"study\.yaml, choose: 'rho' must be a mapping"),
    (chosen(values=0.1), r"study\.yaml, choose: values '0\.1' must be a list"),
    (chosen(options={}), r"study\.yaml, choose: rho is chosen on held-out training examples"),
    (chosen(**{"with": "samm"}), r"study\.yaml, choose: method 'samm'"),
    (chosen(**{"for": ["adamw"]}), "does not perturb|has no rho"),
    (chosen(value=[1]), r"study\.yaml, choose: key 'value': did you mean 'values'"),
    (study(base="gone.yaml"), r"gone\.yaml: cannot be read"),
    (study(base="study.yaml"), r"study\.yaml: the file is its own base"),
    (study(base=["a.yaml"]), r"study\.yaml: base \['a.yaml'\] must be the path of a file"),
    (content("title: [a\n"), r"study\.yaml: not a YAML file"),
    (content(b"title: \xe9\n"), r"study\.yaml: not a YAML file"),
    (content("- a\n"), r"study\.yaml: must hold lines of the form"),
]
COMMANDS = [
    ("glue_runs/run.py low-dat", None, "study 'low-dat': did you mean 'low-data'"),
    ("glue_runs/run.py {tmp}/gone.yaml", None, r"gone\.yaml: cannot be read"),
    (f"{RUN} --jobs 0", study(), "jobs=0: must be at least 1"),
    (f"{RUN} --jobs two", study(), "--jobs: invalid int value: 'two'"),
    (f"{RUN} --epochs 0", study(), r"epochs=0\.0: must be above 0"),
    (f"{RUN} --epochs nan", study(), "epochs=nan: must be above 0"),
    (f"{RUN} --tasks mrcp", study(), "tasks 'mrcp'"),
    (f"{RUN} --methods samm", study(), "methods 'samm': did you mean 'sam'"),
    (f"{RUN} --seeds 7", study(), "seeds '7'"),
    (f"{RUN} --hub_token hf_secret", study(), "hub_token cannot be set .*HF_TOKEN"),
    (f"{RUN} --max_length long", study(), "max_length.*'long'"),
    (f"{RUN} --rhoo 1", study(), "unknown option 'rhoo'; did you mean 'rho'"),
    (f"{RUN} --jobs 1 ++jobs 2", study(), "jobs given more than once"),
    (f"{RUN} --model {{tmp}}/other", study(), "model='.*other': .*give a study its own file"),
    (f"{RUN} --data_dir {{tmp}}/gone", study(), "data_dir='.*gone': no such folder"),
    (f"{RUN} --folder {{model}}/config.json", study(), "folder='.*': cannot be made"),
    (RUN, recorded_run(None), r"seed-1\.json: cannot be read"),
    (RUN, recorded_run("{"), r"seed-1\.json: not a JSON file"),
    (RUN, recorded_run('{"status": "finished"}'), r"seed-1\.json: not the whole record of a run"),
    (
        RUN,
        recorded_run(json.dumps(made_record("cola", "adamw", 1) | {"meta_info": {"settings": SETTINGS}})),
        r"seed-1\.json was made with",
    ),
    ("glue_runs/report.py --folder {tmp}/gone", None, "folder='.*gone': no such folder"),
    (REPORT, readme_folder, "folder='.*': a file README.md has to be written there"),
    (REPORT, plots_file, "plots: must be a folder"),
]
RECORDS = [
    (record_file(b'{"status": "fin'), f"{SEED}: not a JSON file"),
    (record_file(b'{"status": "\xff"}'), f"{SEED}: not a JSON file"),
    (record_file(b""), f"{SEED}: not a JSON file"),
    (record_file(b"[" * 100000), f"{SEED}: not a JSON file"),
    (record_file(b"[]"), f"{SEED}: not the record of a run"),
    (record_file(None), f"{SEED}: cannot be read"),
    (record(without("status")), f"{SEED}: not the record of a run"),
    (record(with_value("status", "done")), f"{SEED}: not the record of a run"),
    *(
        (record(without(way)), f"{SEED}: {way.replace('.', '[.]')}[.a-z_]* is missing; delete the file")
        for way in (
            *("task", "method", "seed", "rho", "run_info", "run_info.date", "meta_info", "train_info"),
            *("train_info.epochs", "train_info.gradient_computations", "train_info.sharpness"),
            *("meta_info.versions", "meta_info.hardware", "meta_info.data", "train_info.metrics.matthews_correlation"),
        )
    ),
    (record(with_value("train_info.epochs", 3)), f"{SEED}: train_info.epochs is 3"),
    (record(with_value("train_info.epochs", [3])), f"{SEED}: train_info.epochs has no epochs"),
    (record(with_value("train_info.metrics.matthews_correlation", "good")), f"{SEED}: train_info.metrics.* is 'good'"),
    (record(with_value("seed", "one")), f"{SEED}: seed is 'one'"),
    (record(with_value("task", "imdb")), "record of task 'imdb'"),
    (record(with_value("method", "adam")), "record of method 'adam'"),
    (record(with_value("method", "adamw")), "two records of"),
    (record(with_value("meta_info.settings.model", "other")), "different settings"),
]
CASES = [
    *(("study file", RUN, make, expected) for make, expected in STUDY_FILES),
    *(("runner", command, make, expected) for command, make, expected in COMMANDS),
    *(("record", REPORT, make, expected) for make, expected in RECORDS),
]
