"""What the errors are for: nothing is lost, and what was asked for in spite of them happens."""

import sys
import time
from pathlib import Path

import pytest
from datasets import Dataset
from huggingface_hub import ModelCard

import run_glue
from hf_sam import SAMConfig
from hf_sam_recipes.common import workflow
from hf_sam_recipes.common.training_options import RecipeTrainingArguments
from hf_sam_recipes.images.data import load_cifar
from hf_sam_recipes.images.tasks import TASKS as CIFAR_TASKS
from hf_sam_recipes.matrix.records import RecordStore
from hf_sam_recipes.matrix.run import Run
from hf_sam_recipes.matrix.runner import FAILED_ALIKE, MatrixRunner

from ..recipes.mistakes import MRPC
from .data_files import nested_key, nested_lists
from .table import write_places


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    return write_places(tmp_path_factory.mktemp("places"))


def run(places, output_dir: Path, *options: str):
    where = [f"--data_dir={places['glue']}", f"--model_name_or_path={places['model']}", f"--output_dir={output_dir}"]
    quick = ["--eval_strategy=no", "--do_eval=false", "--use_cpu=true", "--save_strategy=steps", "--save_steps=1"]
    return run_glue.main([str(MRPC), *where, *quick, *options])


def test_the_same_command_again(places, tmp_path):
    run(places, tmp_path, "--max_steps=3")
    (tmp_path / "notes.txt").write_text("mine")
    there = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert tmp_path / "checkpoint-3" / "trainer_state.json" in there
    with pytest.raises(ValueError, match="has a checkpoint, checkpoint-3, of an earlier run"):
        run(places, tmp_path, "--max_steps=2")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == there

    # Longer than before, from where it was; shorter than before, anew.
    run(places, tmp_path, "--max_steps=4", "--resume_from_checkpoint=auto")
    assert [path.name for path in tmp_path.glob("checkpoint-[0-9]*")] == ["checkpoint-4"]
    run(places, tmp_path, "--max_steps=2", "--overwrite_output_dir=true")
    assert [path.name for path in tmp_path.glob("checkpoint-[0-9]*")] == ["checkpoint-2"]
    assert (tmp_path / "notes.txt").read_text() == "mine"
    card = ModelCard.load(tmp_path / "README.md")
    assert "This model is a fine-tuned version of `model`, a model in a local folder, on the GLUE MRPC dataset" in (
        card.text
    )
    assert "from scratch" not in card.text
    assert str(places["model"].parent) not in card.content


@pytest.mark.parametrize(
    ("method", "ranks", "examples", "is_refused"),
    [("sam", 2, 1, True), ("sam", 2, 2, False), ("sampa", 4, 1, True), ("sampa", 4, 2, False), ("sampa", 2, 1, False)],
)
def test_every_rank_has_an_example(method, ranks, examples, is_refused, tmp_path, monkeypatch):
    args = RecipeTrainingArguments(output_dir=str(tmp_path), do_train=True, use_cpu=True)
    monkeypatch.setattr(RecipeTrainingArguments, "world_size", ranks)
    train = Dataset.from_dict({"label": [0] * examples})
    if is_refused:
        with pytest.raises(ValueError, match=f"{examples} training example.* for {ranks} ranks.*nproc_per_node"):
            workflow.check_training(args, SAMConfig(method=method), train)
    else:
        workflow.check_training(args, SAMConfig(method=method), train)


ATTACKS = {
    "a place in the memo": b"\x80\x02Nr\xff\xff\xff\x7f.",
    "lists that hold each other": nested_lists(60),
    "a key whose hash never ends": nested_key(60),
    "tuples in tuples": b"\x80\x02)" + b"\x85" * 3_000_000 + b".",
    "bytes that are not there": b"\x80\x05\x96" + (2**40).to_bytes(8, "little"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_pickle_takes_neither_memory_nor_hours_nor_the_process(attack, tmp_path):
    (tmp_path / "test_batch").write_bytes(ATTACKS[attack])
    started = time.process_time()
    with pytest.raises(ValueError, match="test_batch: not one of CIFAR's python pickle files"):
        load_cifar(CIFAR_TASKS["cifar10"], ["test"], str(tmp_path))
    assert time.process_time() - started < 5


def failing_runs(reasons: list[str]) -> list[Run]:
    return [
        Run(
            name=f"cola/sam/seed-{seed}",
            task="cola",
            method="sam",
            seed=seed,
            command=(sys.executable, "-c", f"import sys; sys.exit('error: {reason}')"),
        )
        for seed, reason in enumerate(reasons)
    ]


@pytest.mark.parametrize(
    ("reasons", "keep_going", "done"),
    [(["data_dir is gone"] * 6, False, FAILED_ALIKE), (["data_dir is gone"] * 6, True, 6), (list("abcdef"), False, 6)],
)
def test_the_runner_ends_when_the_first_runs_fail_alike(reasons, keep_going, done, tmp_path):
    said: list[str] = []
    runner = MatrixRunner(failing_runs(reasons), RecordStore(tmp_path), keep_going=keep_going, say=said.append)
    assert runner.run() == {"finished": 0, "failed": done}
    assert any(f"failed (exit status 1: error: {reasons[0]})" in line for line in said)
    assert any("--keep_going" in line for line in said) is (done < 6)
