"""Right inputs that look odd stay right, with the values that were meant."""

import io
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import TrainingArguments

import run_glue
from hf_sam import SAMConfig
from hf_sam_recipes.common.options import parse_recipe
from hf_sam_recipes.glue.data import load_glue
from hf_sam_recipes.glue.options import ARGUMENTS, GlueArguments
from hf_sam_recipes.glue.tasks import TASKS
from hf_sam_recipes.images.data import load_cifar
from hf_sam_recipes.images.examples import Augmentation
from hf_sam_recipes.images.tasks import TASKS as CIFAR_TASKS
from hf_sam_recipes.matrix.study_file import read_study

from ..cifar import made_cifar
from ..matrix.studies import write_study_file
from ..recipes import made_glue
from .table import write_places


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    return write_places(tmp_path_factory.mktemp("places"))


TEXTS = {
    "a byte order mark": lambda text: "\ufeff" + text,
    "CRLF": lambda text: text.replace("\n", "\r\n"),
    "no newline at the end": lambda text: text.rstrip("\n"),
    "an empty line at the end": lambda text: text + "\n",
    "quotes that nobody closes": lambda text: text,
}


@pytest.mark.parametrize("odd", TEXTS)
@pytest.mark.parametrize("task", ["rte", "mrpc"])
def test_odd_tsv_files(odd, task, places, tmp_path):
    folder = made_glue.FOLDERS[task]
    shutil.copytree(places["tsv"] / folder, tmp_path / folder)
    path = tmp_path / folder / "train.tsv"
    path.write_bytes(TEXTS[odd](path.read_text(encoding="utf-8")).encode())
    loaded, expected = load_glue(TASKS[task], ["train"], str(tmp_path))["train"], made_glue.examples(task, "train")
    for column in (*made_glue.COLUMNS[task], "label"):
        assert loaded[column][:] == expected[column].tolist()
    assert any('"' in sentence for sentence in expected[made_glue.COLUMNS[task][0]])


CELLS = {
    "non-breaking space": "a\u00a0b",
    "emoji": "🙂 ship",
    "quotes": '"""',
    "a newline in parquet": "a\nb",
    "a line separator": "a\u2028b",
    "leading space": "  a",
    "combining accent": "Zoe\u0308",
    "right to left": "שלום",
    "a very long one": "ship " * 5000,
    "an escape": "a\x1bb",
}


@pytest.mark.parametrize("cell", CELLS)
def test_odd_sentences_in_parquet(cell, tmp_path):
    frame = made_glue.examples("sst2", "train")
    frame.at[3, "sentence"] = CELLS[cell]
    frame.to_parquet(tmp_path / "train.parquet", index=False)
    assert load_glue(TASKS["sst2"], ["train"], str(tmp_path))["train"]["sentence"][3] == CELLS[cell]


def test_a_single_empty_question_among_many_is_kept(tmp_path):
    frame = pd.concat([made_glue.examples("qqp", "train")] * 10, ignore_index=True)
    frame.at[7, "question2"] = ""
    frame.to_parquet(tmp_path / "train.parquet", index=False)
    assert load_glue(TASKS["qqp"], ["train"], str(tmp_path))["train"]["question2"][7] == ""


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "float32", "bool"])
def test_labels_of_other_types(dtype, tmp_path):
    frame = made_glue.examples("sst2", "train")
    frame.assign(label=frame["label"].astype(dtype)).to_parquet(tmp_path / "train.parquet", index=False)
    assert load_glue(TASKS["sst2"], ["train"], str(tmp_path))["train"]["label"][:] == frame["label"].tolist()


@pytest.mark.parametrize(
    ("mode", "kind"), [("L", "PNG"), ("RGBA", "PNG"), ("P", "PNG"), ("LA", "PNG"), ("RGB", "BMP")]
)
def test_odd_images(mode, kind, places, tmp_path):
    images, labels = made_cifar.make_images("cifar10", "test")
    frame, expected = pd.read_parquet(places["cifar"] / "cifar10" / "test.parquet"), []
    for row, image in enumerate(images):
        buffer, odd = io.BytesIO(), Image.fromarray(image).convert(mode)
        odd.save(buffer, kind)
        frame.at[row, "img"] = {"bytes": buffer.getvalue(), "path": None}
        expected.append(np.asarray(odd.convert("RGB")))
    frame.to_parquet(tmp_path / "test.parquet", index=False)
    loaded = load_cifar(CIFAR_TASKS["cifar10"], ["test"], str(tmp_path))["test"]
    assert np.array_equal([np.asarray(image.convert("RGB")) for image in loaded["image"]], expected)
    assert loaded["label"][:] == labels.tolist()


YAMLS = {
    "a byte order mark": b"\xef\xbb\xbfrho: 0.2\ntask_name: rte\n",
    "CRLF": b"rho: 0.2\r\ntask_name: rte\r\n",
    "comments and a document start": "%YAML 1.1\n---\n# ρ\nrho: 0.2 # ε\ntask_name: rte\n".encode(),
    "flow style": b"{rho: 0.2, task_name: rte}",
    "quotes": b"'rho': \"0.2\"\ntask_name: 'rte'\n",
    "an anchor": b"rho: &r 0.2\nrho_end: *r\ntask_name: rte\n",
}


@pytest.mark.parametrize("odd", YAMLS)
def test_odd_yaml_files(odd, tmp_path):
    (tmp_path / "odd.yaml").write_bytes(YAMLS[odd])
    glue, _, _, sam = parse_recipe(ARGUMENTS, [str(tmp_path / "odd.yaml")])
    assert (glue.task_name, sam.rho) == ("rte", 0.2)


@pytest.mark.parametrize(
    ("options", "name", "value"),
    [
        ("--rho 0", "rho", 0.0),
        ("--rho 5e-2", "rho", 0.05),
        ("--rho=+0.1", "rho", 0.1),
        ("--rho 1e4", "rho", 1e4),
        ("--sampa_lambda 1", "sampa_lambda", 1.0),
        ('--method gsam --method_args {"alpha":0}', "method_args", {"alpha": 0}),
        ("--max_steps 3 --num_train_epochs 0 --do_train true", "rho", 0.05),
        ("--num_train_epochs 0", "rho", 0.05),
        ("--debug underflow_overflow --seed 0", "rho", 0.05),
    ],
)
def test_odd_command_lines(options, name, value):
    *_, sam = parse_recipe(ARGUMENTS, ["--task_name", "rte", *options.split()])
    assert getattr(sam, name) == value


def test_numbers_of_numpy_are_taken_and_written(tmp_path):
    config = SAMConfig(rho=np.float32(0.1), every=np.int64(2), start=np.int64(3), rho_schedule="linear", rho_end=1)
    assert (type(config.rho), type(config.every)) == (float, int)
    config.save_pretrained(tmp_path)
    assert SAMConfig.from_pretrained(tmp_path) == config
    assert json.loads((tmp_path / "sam_config.json").read_text())["rho"] == pytest.approx(0.1)


@pytest.mark.parametrize("odd", ["fp16", "bf16", "with a trailing slash", "with spaces in its name", "a link"])
def test_odd_models(odd, places, tmp_path):
    name = "my model" if odd == "with spaces in its name" else "model"
    shutil.copytree(places["model"], tmp_path / name)
    path = tmp_path / name / "model.safetensors"
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(odd, torch.float32)
    weights = {key: weight.to(dtype) for key, weight in load_file(path).items()}
    save_file(weights, path, metadata={"format": "pt"})
    if odd == "a link":
        (tmp_path / "link").symlink_to(tmp_path / name)
    given = str(tmp_path / ("link" if odd == "a link" else name)) + ("/" if "slash" in odd else "")
    args = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, do_train=True)
    model, tokenizer = run_glue.load_model(TASKS["rte"], GlueArguments("rte", model_name_or_path=given), args)
    read = model.bert.state_dict()
    assert all(torch.equal(read[key], weight.float()) for key, weight in weights.items() if key in read)
    assert {weight.dtype for weight in read.values() if weight.is_floating_point()} == {torch.float32}
    assert len(tokenizer) == 4 + len(made_glue.WORDS)


def test_the_widest_crop_is_taken():
    assert Augmentation(padding=31).padding == 31


def test_an_odd_study(tmp_path):
    path = write_study_file(tmp_path, seeds=["0"], epochs="1e-1", options=None, methods={"adamw": None, "sam": {}})
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    study = read_study(path)
    assert (study.seeds, study.epochs, study.options, list(study.methods)) == ((0,), 0.1, {}, ["adamw", "sam"])
