"""However a user is mistaken, and in whatever script: one line with option and value, exit status 2, no traceback."""

import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

import run_glue
from hf_sam_recipes.common.entry import INTERRUPTED, MISTAKE, is_at_work, run_script
from tests.cifar import made_cifar
from tests.distributed.launch import start

from ..conftest import REPOSITORY
from .mistakes import MISTAKES, ON_GLUE, SCRIPTS, typed


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
    ("refused", "cifar_runs/run.py"),
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
        # A shell starts its background jobs with interrupts ignored, and the tests may be one.
        heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=stderr, preexec_fn=heed)
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
