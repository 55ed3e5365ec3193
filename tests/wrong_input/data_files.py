"""Wrong data sets, images, models and output folders."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file


GLUE, CIFAR = "recipes/run_glue.py", "recipes/run_cifar.py"
TSV = {"rte": "RTE", "qqp": "QQP", "sst2": "SST-2"}


def text(task: str, change):
    """The training split of a task as TSV, changed line by line or as a whole."""

    def make(tmp: Path, places):
        shutil.copytree(places["tsv"] / TSV[task], tmp / "data")
        path = tmp / "data" / "train.tsv"
        changed = change(path.read_text(encoding="utf-8").splitlines(keepends=True))
        path.write_bytes(changed if isinstance(changed, bytes) else "".join(changed).encode())

    return make


def table(change):
    """The training split of MRPC as parquet, changed."""

    def make(tmp: Path, places):
        shutil.copytree(places["glue"] / "mrpc", tmp / "data")
        path = tmp / "data" / "train.parquet"
        changed = change(pd.read_parquet(path))
        changed.to_parquet(path, index=False)

    return make


def rows(column: str, values):
    def change(frame):
        frame[column] = frame[column].astype(object) if isinstance(values, dict) else values
        for row, value in values.items() if isinstance(values, dict) else ():
            frame.at[row, column] = value
        return frame

    return change


def data_file(name: str, content: bytes):
    def make(tmp: Path, places):
        shutil.copytree(places["glue"] / "mrpc", tmp / "data")
        (tmp / "data" / name).write_bytes(content)

    return make


def images(change):
    """The training images as parquet files have them, the rows changed."""

    def make(tmp: Path, places):
        shutil.copytree(places["cifar"] / "cifar10", tmp / "data")
        path = tmp / "data" / "train.parquet"
        frame = pd.read_parquet(path)
        change(frame).to_parquet(path, index=False)

    return make


def image(row: int, change):
    def changed(frame):
        there = frame.at[row, "img"]
        frame.at[row, "img"] = {"bytes": change(there["bytes"]), "path": None}
        return frame

    return changed


def pickle_file(content: bytes):
    def make(tmp: Path, places):
        (tmp / "data").mkdir()
        for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
            (tmp / "data" / name).write_bytes(content)

    return make


def nested_lists(levels: int) -> bytes:
    """Each list holds the one below twice: short to write, endless to read."""
    built = b"]\x940"
    for level in range(levels):
        built += b"]\x94(h" + bytes([level]) + b"h" + bytes([level]) + b"e0"
    return b"\x80\x04" + built + b"}C\x06labelsh" + bytes([levels]) + b"s."


def nested_key(levels: int) -> bytes:
    """The same of tuples, as a key: whose hash asks for all of it."""
    built = b")\x940"
    for level in range(levels):
        built += b"h" + bytes([level]) + b"h" + bytes([level]) + b"\x86\x940"
    return b"\x80\x04" + built + b"}h" + bytes([levels]) + b"K\x01s."


def model(change, of: str = "model"):
    def make(tmp: Path, places):
        shutil.copytree(places[of], tmp / "model")
        change(tmp / "model")

    return make


def without(*names: str):
    def change(folder: Path):
        for name in names:
            (folder / name).unlink()

    return change


def config_of(**values):
    def change(folder: Path):
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change


def file_of(name: str, content: bytes):
    return lambda folder: (folder / name).write_bytes(content)


def cut(name: str):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-100])


def weights(change):
    def changed(folder: Path):
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return changed


def foreign_words(folder: Path):
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    words = content["model"]["vocab"]
    content["model"]["vocab"] = {(w if w.startswith("[") else f"zz{w}zz"): i for w, i in words.items()}
    path.write_text(json.dumps(content))


def too_many_words(folder: Path):
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"]["vocab"] = {w: i if w.startswith("[") else i + 500 for w, i in content["model"]["vocab"].items()}
    path.write_text(json.dumps(content))


def head(tensors):
    tensors["classifier.weight"], tensors["classifier.bias"] = torch.zeros(7, 16), torch.zeros(7)


def output(**files: str):
    """Of an earlier run; a name that ends in a slash is a folder."""

    def make(tmp: Path, places):
        for name, content in files.items():
            path = tmp / "new" / name.replace("__", ".").replace("_at_", "/")
            if content == "folder":
                path.mkdir(parents=True)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(content)

    return make


DATA, MODEL = "--data_dir {tmp}/data", "--model_name_or_path {tmp}/model"
RTE, QQP, SST2 = (f"{DATA} --task_name {task}" for task in ("rte", "qqp", "sst2"))
EARLIER = output(**{"checkpoint-3_at_trainer_state__json": "{}", "notes__txt": "mine"})

# Kind, script, options, what is written, what the line must say.
CASES = [
    # TSV.
    ("data", GLUE, RTE, text("rte", lambda lines: [*lines, "99\tone\n"]), r"train\.tsv: 1 line.*4 columns.*line 26"),
    ("data", GLUE, RTE, text("rte", lambda ls: [ls[0], *(li[:9] for li in ls[1:])]), r"train\.tsv: .*columns"),
    ("data", GLUE, QQP, text("qqp", lambda ls: [ls[0], *(li[:9] + "\n" for li in ls[1:])]), r"train\.tsv: 24 line"),
    ("data", GLUE, RTE, text("rte", lambda ls: [*ls, "99\ta\tb\tc\tentailment\n"]), r"train\.tsv: .*line 26 with 5"),
    ("data", GLUE, RTE, text("rte", lambda ls: ["".join(ls)[:-20]]), r"train\.tsv: 1 line\(s\) without the 4 columns"),
    ("data", GLUE, RTE, text("rte", lambda ls: ls[:1]), r"train\.tsv: the train split has no examples"),
    ("data", GLUE, RTE, text("rte", lambda ls: ls[1:]), r"train\.tsv: no column sentence1"),
    ("data", GLUE, RTE, text("rte", lambda ls: []), r"train\.tsv: no column sentence1"),
    ("data", GLUE, RTE, text("rte", lambda ls: [li.replace("\t", ",") for li in ls]), r"train\.tsv: no column sent"),
    (
        "data",
        GLUE,
        RTE,
        text("rte", lambda ls: [*ls, "9\ta\tb\tperhaps\n"]),
        r"train\.tsv: label 'perhaps' of example",
    ),
    ("data", GLUE, RTE, text("rte", lambda ls: [*ls, "9\ta\tb\t\n"]), r"train\.tsv: label '' of example 24"),
    ("data", GLUE, RTE, text("rte", lambda ls: [*ls, "9\ta\tb\t7\n"]), r"train\.tsv: .* labels from 0 to 7"),
    ("data", GLUE, RTE, text("rte", lambda ls: "".join(ls).encode("latin1")), r"train\.tsv: not UTF-8"),
    ("data", GLUE, RTE, text("rte", lambda ls: "".join(ls).encode("utf-16")), r"train\.tsv: not UTF-8"),
    ("data", GLUE, RTE, text("rte", lambda ls: [*ls, "9\ta\0b\tc\tentailment\n"]), r"train\.tsv: .*NUL.*(row 24|TSV)"),
    ("data", GLUE, RTE, text("rte", lambda ls: [*ls, "9\t\t \tentailment\n"]), r"train\.tsv: .*empty.*row 24"),
    (
        "data",
        GLUE,
        RTE,
        text("rte", lambda ls: [*ls, f"9\t{'a' * 200000}\tc\tentailment\n"]),
        r"train\.tsv: not a TSV",
    ),
    ("data", GLUE, SST2, text("sst2", lambda ls: [*ls, "\t1\n"]), r"train\.tsv: .*'sentence' has 1 empty.*row 24"),
    ("data", GLUE, f"{DATA} --task_name qqp", text("rte", lambda ls: ls), "no column"),
    ("data", GLUE, "--task_name stsb", None, "no train split of stsb. Looked for"),
    # Parquet.
    ("data", GLUE, DATA, table(rows("sentence1", {3: None})), r"train\.parquet: column 'sentence1' has None in row 3"),
    ("data", GLUE, DATA, table(rows("sentence2", {3: ""})), r"train\.parquet: column 'sentence2' has 1 empty.*row 3"),
    ("data", GLUE, DATA, table(rows("sentence2", {5: "a\0b"})), r"train\.parquet: .*NUL character in row 5"),
    ("data", GLUE, DATA, table(rows("sentence1", range(24))), r"train\.parquet: column 'sentence1' has 0 in row 0"),
    ("data", GLUE, DATA, table(rows("label", 7)), r"train\.parquet: .*labels from 7 to 7 instead of 0 to 1"),
    ("data", GLUE, DATA, table(rows("label", 0.5)), r"train\.parquet: column 'label' has .*0\.5"),
    ("data", GLUE, DATA, table(rows("label", np.nan)), r"train\.parquet: column 'label' has .*nan"),
    ("data", GLUE, DATA, table(rows("label", {2: None})), r"train\.parquet: column 'label' has"),
    ("data", GLUE, DATA, table(rows("label", "yes")), r"train\.parquet: column 'label' has 'yes'"),
    ("data", GLUE, DATA, table(rows("label", -1)), r"train\.parquet: .*labels from -1 to -1 instead of 0 to 1"),
    ("data", GLUE, DATA, table(lambda f: f.drop(columns="label")), r"train\.parquet: no column label"),
    ("data", GLUE, DATA, table(lambda f: f.rename(columns={"sentence2": "text"})), r"no column sentence2; it has"),
    ("data", GLUE, DATA, table(lambda f: f.iloc[:0]), r"train\.parquet: .*(examples)"),
    ("data", GLUE, DATA, data_file("train.parquet", b""), r"train\.parquet: cannot be read as parquet"),
    ("data", GLUE, DATA, data_file("train.parquet", b"PAR1 no more"), r"train\.parquet: cannot be read as parquet"),
    (
        "data",
        GLUE,
        DATA,
        data_file("validation.parquet", b"x" * 99),
        r"validation\.parquet: cannot be read as parquet",
    ),
    # Images.
    ("images", CIFAR, DATA, images(image(4, lambda b: b[:60])), r"train\.parquet: column 'img' has no whole.*row 4"),
    ("images", CIFAR, DATA, images(image(5, lambda b: b[:-800])), r"train\.parquet: column 'img' has no whole.*row 5"),
    ("images", CIFAR, DATA, images(image(0, lambda b: b"")), r"train\.parquet: column 'img' has no whole.*row 0"),
    ("images", CIFAR, DATA, images(image(59, lambda b: b"GIF89a")), r"train\.parquet: column 'img' has no .*row 59"),
    ("images", CIFAR, DATA, images(image(7, lambda b: None)), r"train\.parquet: column 'img' has no .*row 7"),
    ("images", CIFAR, DATA, images(lambda f: f.assign(img="a.png")), r"train\.parquet: .*no (whole )?image"),
    ("images", CIFAR, DATA, images(lambda f: f.assign(img=3)), r"train\.parquet: column 'img' has no images"),
    ("images", CIFAR, DATA, images(lambda f: f.assign(label=-1)), r"train\.parquet: has labels from -1"),
    ("images", CIFAR, DATA, images(lambda f: f.assign(label=0.5)), r"train\.parquet: column 'label' has"),
    ("images", CIFAR, DATA, images(lambda f: f.drop(columns="img")), r"train\.parquet: no column img or image"),
    ("images", CIFAR, DATA, images(lambda f: f.iloc[:0]), r"train\.parquet: .*examples"),
    ("images", CIFAR, DATA, pickle_file(b""), r"data_batch_1: not one of CIFAR's python pickle files"),
    ("images", CIFAR, DATA, pickle_file(b"<html>"), r"data_batch_1: not one of CIFAR's python pickle files"),
    ("images", CIFAR, DATA, pickle_file(b"\x80\x02Nr\xff\xff\xff\x7f."), r"data_batch_1: not one of.*memo"),
    ("images", CIFAR, DATA, pickle_file(b"\x80\x04\x8d" + b"\xff" * 7 + b"\x0f."), r"data_batch_1: not one of"),
    ("images", CIFAR, DATA, pickle_file(b"\x80\x05\x96" + b"\xff" * 4 + b"\0" * 4), r"data_batch_1: not one of"),
    ("images", CIFAR, DATA, pickle_file(nested_lists(50)), r"data_batch_1: not one of.*(nested|held)"),
    ("images", CIFAR, DATA, pickle_file(nested_key(50)), r"data_batch_1: not one of.*(nested|held)"),
    (
        "images",
        CIFAR,
        DATA,
        pickle_file(b"\x80\x02)" + b"\x85" * 500000 + b"."),
        r"data_batch_1: not one of.*(nested|held)",
    ),
    ("images", CIFAR, DATA, pickle_file(b"\x80\x02}" + b"\x85" * 500000 + b"Ns."), r"data_batch_1: not one of"),
    ("images", CIFAR, DATA, pickle_file(b"cos\nsystem\n(S'true'\ntR."), r"data_batch_1: not one of.*os\.system"),
    # Models.
    ("model", GLUE, "--model_name_or_path {tmp}/gone", None, "model_name_or_path='.*gone': no such folder"),
    (
        "model",
        GLUE,
        "--model_name_or_path models/my/bert",
        None,
        "model_name_or_path='models/my/bert': no such folder",
    ),
    (
        "model",
        GLUE,
        "--model_name_or_path my:bert",
        None,
        "model_name_or_path='my:bert': no such folder.*give a folder",
    ),
    ("model", GLUE, "--model_name_or_path no/one", None, "model_name_or_path='no/one': .*give a folder"),
    ("model", GLUE, "--model_name_or_path {glue}", None, "model_name_or_path='.*glue': .*give a folder"),
    ("model", GLUE, "--model_name_or_path {model}/config.json", None, "model_name_or_path='.*config.json': .*give"),
    ("model", GLUE, "--model_name_or_path {vit}", None, "model_name_or_path='.*vit': .*give a folder"),
    ("model", GLUE, MODEL, model(without("config.json")), "model_name_or_path='.*model': .*give a folder"),
    ("model", GLUE, MODEL, model(without("model.safetensors")), "model_name_or_path='.*model': .*safetensors"),
    (
        "model",
        GLUE,
        MODEL,
        model(without("tokenizer.json", "tokenizer_config.json")),
        "model_name_or_path='.*model': its tokenizer has no words.*tokenizer.json",
    ),
    ("model", GLUE, MODEL, model(without("tokenizer.json")), "model_name_or_path='.*model': .*(token|give)"),
    ("model", GLUE, MODEL, model(foreign_words), "model_name_or_path='.*model': its tokenizer knows no word"),
    ("model", GLUE, MODEL, model(too_many_words), "model_name_or_path='.*model': its tokenizer gives token 5"),
    ("model", GLUE, MODEL, model(file_of("config.json", b"{")), "model_name_or_path='.*model': .*JSON"),
    (
        "model",
        GLUE,
        MODEL,
        model(file_of("config.json", b"\xff\xfe")),
        "model_name_or_path='.*model': .*give a folder",
    ),
    ("model", GLUE, MODEL, model(file_of("config.json", b"[]")), "model_name_or_path='.*model': .*give a folder"),
    ("model", GLUE, MODEL, model(config_of(model_type="brt")), "model_name_or_path='.*model': .*brt"),
    ("model", GLUE, MODEL, model(config_of(hidden_size=24)), "model_name_or_path='.*model': "),
    ("model", GLUE, MODEL, model(config_of(hidden_size="many")), "model_name_or_path='.*model': "),
    ("model", GLUE, MODEL, model(file_of("tokenizer.json", b"{}")), "model_name_or_path='.*model': .*give a folder"),
    ("model", GLUE, MODEL, model(file_of("tokenizer.json", b"no")), "model_name_or_path='.*model': .*give a folder"),
    ("model", GLUE, MODEL, model(cut("model.safetensors")), "model_name_or_path='.*model': .*broken files"),
    ("model", GLUE, MODEL, model(file_of("model.safetensors", b"")), "model_name_or_path='.*model': .*broken files"),
    ("model", GLUE, MODEL, model(weights(head)), "model_name_or_path='.*model': .*ignore_mismatched_sizes"),
    ("model", CIFAR, MODEL, model(without("preprocessor_config.json"), "vit"), "model_name_or_path='.*model': .*give"),
    ("model", CIFAR, MODEL, model(cut("model.safetensors"), "vit"), "model_name_or_path='.*model': .*broken files"),
    # Output folders.
    ("output", GLUE, "", EARLIER, "output_dir='.*new' has a checkpoint, checkpoint-3, .*overwrite_output_dir"),
    ("output", CIFAR, "", EARLIER, "output_dir='.*new' has a checkpoint, checkpoint-3, .*resume_from_checkpoint auto"),
    ("output", GLUE, "", output(README__md="folder"), "output_dir='.*new': a file README.md has to be written there"),
    ("output", CIFAR, "", output(loss_curves__png="folder"), "output_dir='.*new': a file loss_curves.png has to"),
    (
        "output",
        GLUE,
        "--resume_from_checkpoint {tmp}/new",
        output(a="b"),
        "resume_from_checkpoint='.*': no such check",
    ),
    (
        "output",
        GLUE,
        "",
        output(**{"checkpoint-of-mine_at_notes__txt": "mine"}),
        "output_dir='.*new' has checkpoint-of-mine, which save_total_limit=1 would delete.*move or rename",
    ),
]
