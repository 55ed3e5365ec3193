"""However a user is mistaken, and in whatever script: one line with option and value, exit status 2, no traceback."""

import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

import demo
import demo_vit
import run_cifar
import run_glue
import run_measured
from hf_sam_recipes.benchmarks.cifar import CIFAR
from hf_sam_recipes.benchmarks.glue import GLUE
from hf_sam_recipes.common.entry import INTERRUPTED, MISTAKE, is_at_work, run_script
from hf_sam_recipes.matrix.command_line import rho_main, run_main
from hf_sam_recipes.matrix.report import report_main
from tests.cifar import made_cifar
from tests.distributed.launch import start

from ..conftest import REPOSITORY


# What is typed -> what `run_script` gets there.
SCRIPTS = {
    "recipes/run_glue.py": run_glue.main,
    "recipes/run_cifar.py": run_cifar.main,
    "recipes/run_measured.py": run_measured.main,
    "recipes/demo.py": demo.main,
    "recipes/demo_vit.py": demo_vit.main,
    "glue_runs/run.py": partial(run_main, GLUE),
    "glue_runs/select_rho.py": partial(rho_main, GLUE),
    "glue_runs/report.py": partial(report_main, GLUE),
    "cifar_runs/run.py": partial(run_main, CIFAR),
    "cifar_runs/select_rho.py": partial(rho_main, CIFAR),
    "cifar_runs/report.py": partial(report_main, CIFAR),
}
MRPC, CIFAR10 = REPOSITORY / "recipes/glue/mrpc/sam.yaml", REPOSITORY / "recipes/cifar/cifar10/sam.yaml"
ON_GLUE = f"{MRPC} --data_dir {{glue}} --model_name_or_path {{model}} --output_dir {{new}} --use_cpu"
ON_CIFAR = f"{CIFAR10} --data_dir {{cifar}} --model_name_or_path {{model}} --output_dir {{new}} --use_cpu"

# Kind of mistake, script, command line, what the line must say.
MISTAKES = [
    ("unknown option", "recipes/run_glue.py", f"{ON_GLUE} --rhoo 0.1", "'rhoo'; did you mean 'rho'"),
    ("unknown option", "recipes/run_cifar.py", f"{ON_CIFAR} --crop_pading 2", "'crop_pading'; did you mean 'crop_pad"),
    ("unknown option", "recipes/run_measured.py", "--recip run_glue", "--result_folder, --recipe"),
    ("unknown option", "recipes/demo.py", "--epoch 1", "'epoch'; did you mean 'epochs'"),
    ("unknown option", "glue_runs/run.py", "--task cola", "'task'; did you mean 'tasks'"),
    ("unknown option", "glue_runs/run.py", "--max_lenght 8", "'max_lenght'; did you mean 'max_length'"),
    ("unknown option", "cifar_runs/select_rho.py", "--rho_file {new} --rhoss 1", "'rhoss'; did you mean 'rhos'"),
    ("unknown option", "glue_runs/report.py", "--foldr x", "'foldr'; did you mean 'folder'"),
    ("wrong value", "recipes/run_glue.py", f"{ON_GLUE} --rho much", "argument --rho: invalid float value: 'much'"),
    ("wrong value", "recipes/run_glue.py", f"{ON_GLUE} --rho=-1", r"SAMConfig\.rho=-1\.0: must be"),
    ("wrong value", "recipes/run_glue.py", f"{ON_GLUE} --task_name mrcp", "task_name='mrcp': did you mean 'mrpc'"),
    ("wrong value", "recipes/run_glue.py", f"{ON_GLUE} --label_noise 7", r"label_noise=7\.0: must be from 0 to 1"),
    (
        "wrong value",
        "recipes/run_glue.py",
        f"{ON_GLUE} --lr_scheduler_kwargs {{{{bad}}}}",
        "--lr_scheduler_kwargs: '{bad}' is not JSON",
    ),
    ("wrong value", "recipes/demo_vit.py", "--epochs 0", r"epochs=0\.0: must be above 0"),
    (
        "wrong value",
        "recipes/run_measured.py",
        "--recipe run_glu --result_folder {there}",
        "recipe='run_glu': no such",
    ),
    ("wrong value", "glue_runs/run.py", "--methods samm --seeds 1", "method 'samm': did you mean 'sam'"),
    ("wrong value", "cifar_runs/run.py", "--jobs 0 --runs_dir {new}", "jobs=0: must be at least 1"),
    (
        "unknown key in YAML",
        "recipes/run_glue.py",
        "{misspelt}",
        r"misspelt\.yaml: unknown option 'rhoo'; did you mean",
    ),
    ("unknown key in YAML", "recipes/run_cifar.py", "{misspelt}", r"misspelt\.yaml: unknown option 'rhoo'; did you"),
    ("unknown key in YAML", "recipes/run_glue.py", "{broken}", r"broken\.yaml: not a YAML file: .* line 2"),
    ("unknown key in YAML", "glue_runs/run.py", "--rho_file {misspelt}", r"misspelt\.yaml: no choice of rho"),
    ("missing file", "recipes/run_glue.py", "{there}/gone.yaml", r"gone\.yaml: no such recipe file"),
    ("missing file", "recipes/run_glue.py", f"{ON_GLUE} --data_dir {{gone}}", "data_dir='.*gone': no such folder"),
    ("missing file", "recipes/run_cifar.py", f"{ON_CIFAR} --data_dir {{there}}", "data_dir='.*': no train split of"),
    (
        "missing file",
        "recipes/run_glue.py",
        f"{ON_GLUE} --resume_from_checkpoint {{there}}",
        "resume_from_checkpoint='.*': no such checkpoint",
    ),
    ("missing file", "recipes/run_glue.py", f"{ON_GLUE} --output_dir {{broken}}/x", "output_dir='.*': cannot be made"),
    ("missing file", "recipes/demo.py", "--output_dir {broken}/x", "output_dir='.*': cannot be made"),
    ("missing file", "glue_runs/run.py", "--data_dir {gone}", "data_dir='.*gone': no such folder"),
    ("missing file", "cifar_runs/run.py", "--rho_file {gone}", "rho_file='.*gone': no such file"),
    ("missing file", "cifar_runs/report.py", "--folder {gone}", "folder='.*gone': no such folder"),
    ("no model", "recipes/run_glue.py", f"{ON_GLUE} --model_name_or_path {{gone}}", "model_name_or_path='.*gone': no"),
    (
        "no model",
        "recipes/run_glue.py",
        f"{ON_GLUE} --model_name_or_path no/one",
        "name_or_path='no/one': .*Hub",
    ),
    (
        "no model",
        "recipes/run_cifar.py",
        f"{ON_CIFAR} --model_name_or_path {{there}}",
        "Unrecognized model in .*there",
    ),
    (
        "refused",
        "recipes/run_glue.py",
        f"{ON_GLUE} --method sampa --optim adafactor",
        "method='sampa' .* cannot be combined with optim='adafactor'",
    ),
    (
        "refused",
        "recipes/run_cifar.py",
        f"{ON_CIFAR} --do_train no --from_scratch",
        "from_scratch=True without do_train",
    ),
    ("refused", "glue_runs/run.py", "--rho 1 --rho_file {misspelt}", "--rho and --rho_file both set the radius"),
    ("refused", "glue_runs/select_rho.py", "--rho 1 --rho_file {new}", "--rho cannot be given .* use --rhos"),
]


@pytest.fixture(scope="module")
def paths(parquet_folder, model_folder, tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("mistakes")
    (folder / "misspelt.yaml").write_text("seed: 1\nrhoo: 0.1\n")
    (folder / "broken.yaml").write_text("task_name: mrpc\n  rho: [0.1\n")
    (folder / "there").mkdir()
    made_cifar.write_parquet(folder / "images", "cifar10")
    names = {"there": "there", "gone": "gone", "new": "new", "cifar": "images"}
    found = {name: folder / file for name, file in names.items()}
    found |= {name: folder / f"{name}.yaml" for name in ("misspelt", "broken")}
    return found | {"glue": parquet_folder, "model": model_folder}


def typed(command: str, paths: dict[str, Path]) -> list[str]:
    return [word.format(**paths) for word in command.split()]


def check_told(stderr: str, expected: str) -> None:
    told = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert len(told) == 1, stderr[-3000:]
    assert re.search(expected, told[0]), told
    assert "most recent call last" not in stderr


@pytest.mark.parametrize(
    ("kind", "script", "command", "expected"), MISTAKES, ids=[f"{m[0]}, {m[1]}" for m in MISTAKES]
)
def test_a_mistake_is_told_in_one_line(kind, script, command, expected, paths, monkeypatch, capfd):
    monkeypatch.setattr(sys, "argv", [script, *typed(command, paths)])
    with pytest.raises(SystemExit) as ended:
        run_script(SCRIPTS[script], go_on="again")
    assert ended.value.code == MISTAKE
    stderr = capfd.readouterr().err
    check_told(stderr, expected)
    assert stderr.splitlines()[-1].startswith("error: ")


# One of every kind. What is imported before the options are read must not write anything, either.
PROCESSES = [
    ("unknown option", "glue_runs/run.py"),
    ("wrong value", "recipes/demo_vit.py"),
    ("unknown key in YAML", "recipes/run_cifar.py"),
    ("missing file", "cifar_runs/report.py"),
    ("refused", "glue_runs/select_rho.py"),
]


@pytest.mark.parametrize(("kind", "script"), PROCESSES)
def test_a_mistake_ends_a_process(kind, script, paths):
    command, expected = next((m[2], m[3]) for m in MISTAKES if m[:2] == (kind, script))
    ended = subprocess.run(
        [sys.executable, REPOSITORY / script, *typed(command, paths)], capture_output=True, text=True
    )
    assert ended.returncode == MISTAKE
    check_told(ended.stderr, expected)
    assert len(ended.stderr.splitlines()) == 1


def test_a_mistake_on_two_ranks_is_told_once(paths, recipes):
    """The model is read late, when the ranks are already connected. What torchrun adds is not in our hands."""
    command = next(m[2] for m in MISTAKES if m[0] == "no model")
    ended = start(2, [str(recipes / "run_glue.py"), *typed(command, paths)], timeout=200)
    assert ended.returncode != 0
    ours, _, torchruns = ended.stdout.partition("\nTraceback (most recent call last):\n")
    check_told(ours, "model_name_or_path='.*gone': no such folder")
    assert "launch_agent" in torchruns
    assert "entry.py" not in torchruns
    assert "traceback : see the line with `error:` above" in torchruns


ONE_RANK_FAILS = """
import os, sys, time
import torch.distributed as dist
from hf_sam_recipes.common.entry import run_script

def main(args):
    dist.init_process_group("gloo")
    if os.environ["RANK"] == args[0]:
        raise ValueError("data_dir='here': no such folder.")
    dist.barrier()

run_script(main, go_on="again")
"""


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_is_mistaken_alone_says_so_and_ends_all(rank, tmp_path):
    (tmp_path / "script.py").write_text(ONE_RANK_FAILS)
    ended = start(2, [str(tmp_path / "script.py"), str(rank)], timeout=100)
    assert ended.returncode != 0
    ours, _, _ = ended.stdout.partition("\nTraceback (most recent call last):\n")
    check_told(ours, r"data_dir='here': no such folder\." + (r" \(on rank 1\)" if rank else "$"))


def test_debug_shows_where_a_mistake_was_found(paths, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["run_glue.py", *typed(ON_GLUE, paths), "--debug", "--rhoo", "0.1"])
    with pytest.raises(SystemExit) as ended:
        run_script(run_glue.main, go_on="again")
    stderr = capsys.readouterr().err
    assert ended.value.code == MISTAKE
    assert "in parse_recipe" in stderr
    assert stderr.splitlines()[-1] == "error: command line: unknown option 'rhoo'; did you mean 'rho'?"


@pytest.mark.parametrize(
    ("args", "left"),
    [
        (["a.yaml", "--debug"], ["a.yaml"]),
        (["--debug", "a.yaml"], ["a.yaml"]),
        (["--debug", "underflow_overflow", "--seed", "1"], ["--debug", "underflow_overflow", "--seed", "1"]),
    ],
)
def test_the_debug_option_of_the_trainer_stays_its_own(args, left, monkeypatch):
    seen = []
    monkeypatch.setattr(sys, "argv", ["script.py", *args])
    with pytest.raises(SystemExit) as ended:
        run_script(seen.append, go_on="again")
    assert (seen, ended.value.code) == ([left], 0)


@is_at_work()
def fail_at_work(args):
    raise ValueError("shapes do not fit")


def fail_otherwise(args):
    raise KeyError("weights")


@pytest.mark.parametrize(("main", "error"), [(fail_at_work, ValueError), (fail_otherwise, KeyError)])
def test_an_error_of_the_program_keeps_its_traceback(main, error, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["script.py"])
    with pytest.raises(error):
        run_script(main, go_on="again")
    assert "error:" not in capsys.readouterr().err


class Breaks(run_glue.SAMTrainer):
    """Fails where its attribute says, with what elsewhere would be the mistake of a user."""

    where = "training_step"

    def training_step(self, *args, **kwargs):
        if self.where == "training_step":
            raise ValueError("in the middle of training")
        return super().training_step(*args, **kwargs)

    def create_optimizer(self, *args, **kwargs):
        if self.where == "create_optimizer":
            raise ValueError("optim=nothing: no such optimizer")
        return super().create_optimizer(*args, **kwargs)


@pytest.mark.parametrize(("where", "ends_with"), [("training_step", ValueError), ("create_optimizer", SystemExit)])
def test_errors_are_the_programs_once_training_has_begun(where, ends_with, paths, tmp_path, monkeypatch):
    monkeypatch.setattr(Breaks, "where", where)
    monkeypatch.setattr(sys, "argv", ["run_glue.py", *typed(ON_GLUE, paths | {"new": tmp_path})])
    with pytest.raises(ends_with):
        run_script(partial(run_glue.main, trainer_class=Breaks), go_on="again")


def test_an_interrupt_ends_a_training_with_one_line(paths, recipes, tmp_path):
    options = [*typed(ON_GLUE, paths | {"new": tmp_path}), "--num_train_epochs", "10000", "--save_strategy", "steps"]
    command = [sys.executable, "-u", recipes / "run_glue.py", *options, "--save_steps", "3", "--eval_strategy", "no"]
    with open(tmp_path / "stderr", "w") as stderr:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=stderr)
    try:
        while not list(tmp_path.glob("checkpoint-*")):
            assert process.poll() is None, (tmp_path / "stderr").read_text()
            time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == INTERRUPTED
    finally:
        process.kill()
    printed = (tmp_path / "stderr").read_text()
    assert "Traceback" not in printed
    assert printed.splitlines()[-1].startswith("stopped; the same command with --resume_from_checkpoint auto goes on")
