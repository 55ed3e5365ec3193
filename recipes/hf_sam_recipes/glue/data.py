"""GLUE from the Hub, from parquet files with the Hub's columns, or from the official TSV files: the same examples."""

import csv
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, Features, NamedSplit, Value
from transformers.utils import logging

from ..common.folders import existing_folder
from ..common.sources import load_from_hub, load_parquet, parquet_patterns, read_labels
from .tasks import TASKS, GlueTask


logger = logging.get_logger(__name__)

HUB_DATASET = "nyu-mll/glue"

# Where the official files' columns differ from the Hub's, by the Hub's name. Of CoLA, only the test file has a header.
TSV_COLUMNS = {
    "mrpc": {"sentence1": "#1 String", "sentence2": "#2 String", "label": "Quality"},
    "stsb": {"label": "score"},
    "qqp": {"label": "is_duplicate"},
    "mnli": {"premise": "sentence1", "hypothesis": "sentence2", "label": "gold_label"},
}
COLA_COLUMNS = ("source", "label", "original_label", "sentence")

# What Microsoft distributes, for whoever has not run the official download script on it. Its split into training and
# validation examples is the official list of ids.
MRPC_RAW = {
    "train": "msr_paraphrase_train.txt",
    "validation": "msr_paraphrase_train.txt",
    "test": "msr_paraphrase_test.txt",
}
MRPC_DEV_IDS = "dev_ids.tsv"

# Lines of the official files of QQP that have too few columns. No other task's files have any.
BROKEN_IN_QQP = 5
MOST_EMPTY = 0.01  # of the sentences of a column; the official QQP has a handful of empty questions


def load_glue(task: GlueTask, splits: Iterable[str], data_dir: str | None = None) -> dict[str, Dataset]:
    """
    Load the wanted splits of a task.

    Args:
        task (`GlueTask`): The task.
        splits (`Iterable[str]`): Names as on the Hub, for example `("train", "validation_matched")`. MNLI's mismatched
            splits are left out, with a warning, where `data_dir` does not have them.
        data_dir (`str`, *optional*): A folder with one folder per task, or the folder of the task. Holds
            `<split>.parquet` (or the Hub's `<split>-00000-of-00001.parquet`) or the official TSV files.
            `None` means the Hub.

    Returns:
        `dict[str, Dataset]`: by split, with the columns of the sentences, `label` and `idx`. The label is -1 in a test
        split.

    Raises:
        `ValueError`: a folder, file or column is missing, a line is broken, or a label is not one of the task's.
    """
    loaded = {}
    for split in splits:
        files = None if data_dir is None else _find_files(task, split, existing_folder("data_dir", data_dir))
        if files == []:
            logger.warning_once(f"{data_dir} has no {split} split of {task.name}: it is left out.")
            continue
        if files is None:
            dataset = load_from_hub(HUB_DATASET, split, "the task's parquet or TSV files", config=task.name)
        elif files[0].suffix == ".parquet":
            dataset = load_parquet(files, split)
        else:
            dataset = _from_tsv(task, split, files[0])
        source = HUB_DATASET if files is None else files[0]
        loaded[split] = _checked(task, split, dataset, source)
    return loaded


def _find_files(task: GlueTask, split: str, data_dir: Path) -> list[Path]:
    patterns = [*parquet_patterns(split), f"{split.replace('validation', 'dev')}.tsv"]
    if task.name == "mrpc":
        patterns.append(MRPC_RAW[split])

    for folder in (data_dir / task.name, data_dir / task.folder, data_dir):
        for pattern in patterns:
            files = sorted(folder.glob(pattern))
            if files:
                other = folder.name.lower().replace("-", "")
                if other in TASKS and other != task.name:
                    raise ValueError(
                        f"data_dir={str(data_dir)!r} is the folder of {other}, but task_name={task.name!r}."
                    )
                return files
    if split.endswith("_mismatched"):
        return []
    raise ValueError(
        f"data_dir={str(data_dir)!r}: no {split} split of {task.name}. Looked for {', '.join(patterns)} in the folder "
        f"and in its {task.name}/ and {task.folder}/."
    )


def _from_tsv(task: GlueTask, split: str, path: Path) -> Dataset:
    columns = {name: name for name in (*task.sentences, "label")} | TSV_COLUMNS.get(task.name, {})
    is_test = split.startswith("test")
    if is_test:
        del columns["label"]
    header = COLA_COLUMNS if task.name == "cola" and not is_test else None
    examples = {name: [] for name in (*task.sentences, "label", "idx")}
    broken = []
    # utf-8-sig: MRPC's raw files start with a byte order mark, which would become a part of the first column's name.
    with open(path, encoding="utf-8-sig") as file, _reading(path):
        reader = csv.DictReader(file, fieldnames=header, delimiter="\t", quoting=csv.QUOTE_NONE)
        _check_columns(columns.values(), reader.fieldnames or (), path)
        keep = _mrpc_filter(split, path)
        for index, row in enumerate(reader):
            if None in row or None in row.values():
                broken.append((reader.line_num, len(reader.fieldnames), _cells(row)))
            elif keep(row):
                for name in task.sentences:
                    examples[name].append(row[columns[name]])
                examples["label"].append(-1 if is_test else _label(task, row[columns["label"]], path, index))
                examples["idx"].append(index)
    if broken and not (task.name == "qqp" and not is_test and len(broken) <= BROKEN_IN_QQP):
        line, wanted, cells = broken[0]
        raise ValueError(
            f"{path}: {len(broken)} line(s) without the {wanted} columns of the first one, line {line} with {cells}: "
            "cut off or damaged; download the file again."
        )
    if broken:
        logger.warning(
            f"{path}: left out {len(broken)} line(s) with too few columns (the Hub's copy does not have them either)."
        )
    features = {name: Value("string") for name in task.sentences}
    features |= {"label": Value("float32" if task.is_regression else "int64"), "idx": Value("int32")}
    return Dataset.from_dict(examples, Features(features), split=NamedSplit(split))


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 ({error}); save it as UTF-8, or download it again.") from error
    except csv.Error as error:
        raise ValueError(f"{path}: not a TSV file ({error}); download it again.") from error


def _cells(row: dict[str | None, Any]) -> int:
    return sum(value is not None for key, value in row.items() if key is not None) + len(row.get(None, ()))


def _mrpc_filter(split: str, path: Path):
    if path.name != MRPC_RAW["train"]:
        return lambda row: True
    ids = path.with_name(MRPC_DEV_IDS)
    if not ids.is_file():
        raise ValueError(f"{ids} is missing: it says which lines of {path.name} are the validation split.")
    with open(ids, encoding="utf-8") as file:
        dev = {tuple(line.split("\t")[:2]) for line in file.read().splitlines()}
    return lambda row: ((row["#1 ID"], row["#2 ID"]) in dev) == (split == "validation")


def _label(task: GlueTask, text: str, path: Path, index: int) -> float:
    try:
        if task.is_regression:
            return float(text)
        return task.labels.index(text) if text in task.labels else int(text)
    except ValueError as error:
        raise ValueError(f"{path}: label {text!r} of example {index} is not one of {task.name}'s.") from error


def _label_feature(task: GlueTask) -> ClassLabel | Value:
    return Value("float32") if task.is_regression else ClassLabel(names=list(task.labels))


def _check_columns(wanted: Iterable[str], present: Iterable[str], source: Path | str) -> None:
    missing = [name for name in wanted if name not in present]
    if missing:
        raise ValueError(f"{source}: no column {', '.join(missing)}; it has: {', '.join(present)}.")


def _check_sentences(task: GlueTask, dataset: Dataset, source: Path | str) -> None:
    fix = "mend the file, or download it again"
    without_words = np.zeros((len(task.sentences), len(dataset)), dtype=bool)
    for place, name in enumerate(task.sentences):
        for row, sentence in enumerate(dataset[name][:]):
            if not isinstance(sentence, str):
                raise ValueError(f"{source}: column {name!r} has {sentence!r} in row {row}, no sentence; {fix}.")
            if "\0" in sentence:
                raise ValueError(f"{source}: column {name!r} has a NUL character in row {row}; {fix}.")
            without_words[place, row] = not sentence.strip()
        if without_words[place].mean() > MOST_EMPTY:
            count, row = without_words[place].sum(), without_words[place].argmax()
            raise ValueError(
                f"{source}: column {name!r} has {count} empty sentences of {len(dataset)}, the first in row {row}; "
                f"{fix}."
            )
    if without_words.all(axis=0).any():
        row = without_words.all(axis=0).argmax()
        raise ValueError(f"{source}: nothing but empty sentences in row {row}; {fix}.")


def _checked(task: GlueTask, split: str, dataset: Dataset, source: Path | str) -> Dataset:
    is_test = split.startswith("test")
    _check_columns(task.sentences if is_test else (*task.sentences, "label"), dataset.column_names, source)
    if is_test and "label" not in dataset.column_names:
        dataset = dataset.add_column("label", [-1] * len(dataset))
    if len(dataset) == 0:
        raise ValueError(f"{source}: the {split} split has no examples.")

    _check_sentences(task, dataset, source)
    feature = dataset.features["label"]
    if isinstance(feature, ClassLabel) and feature.names != list(task.labels):
        raise ValueError(f"{source}: its classes are {feature.names}, those of {task.name} are {list(task.labels)}.")
    if not is_test:
        labels = read_labels(dataset, "label", source, whole=not task.is_regression)
        lowest, highest = (0, 5) if task.is_regression else (0, task.num_labels - 1)
        if not (labels.min() >= lowest and labels.max() <= highest):
            raise ValueError(
                f"{source}: the {split} split of {task.name} has labels from {labels.min()} to {labels.max()} instead "
                f"of {lowest} to {highest}."
            )
    return dataset if feature == _label_feature(task) else dataset.cast_column("label", _label_feature(task))
