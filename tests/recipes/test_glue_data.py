"""Parquet with the Hub's columns and the official TSV files give the same examples; what is missing is named."""

import shutil

import pandas as pd
import pytest

from hf_sam_recipes.glue.data import MRPC_DEV_IDS, MRPC_RAW, load_glue
from hf_sam_recipes.glue.tasks import TASKS, find_task

from . import made_glue


@pytest.mark.parametrize("name", made_glue.TASKS)
def test_tsv_and_parquet_give_the_same_examples(name, parquet_folder, tsv_folder):
    splits = made_glue.splits_of(name)
    from_parquet = load_glue(TASKS[name], splits, str(parquet_folder))
    from_tsv = load_glue(TASKS[name], splits, str(tsv_folder))
    assert list(from_parquet) == list(from_tsv) == splits
    for split in splits:
        made = made_glue.examples(name, split)
        for loaded in (from_parquet[split], from_tsv[split]):
            for column in [*made_glue.COLUMNS[name], "label", "idx"]:
                assert loaded[column][:] == made[column].tolist(), (split, column)
        assert from_parquet[split].features["label"] == from_tsv[split].features["label"]


def test_the_folder_of_the_task_and_the_hub_s_file_names_are_found_too(parquet_folder, tmp_path):
    task = TASKS["rte"]
    made = made_glue.examples("rte", "train")
    assert load_glue(task, ["train"], str(parquet_folder / "rte"))["train"]["label"][:] == made["label"].tolist()

    halves = made.iloc[:10], made.iloc[10:]
    (tmp_path / "rte").mkdir()
    for number, half in enumerate(halves):
        half.to_parquet(tmp_path / "rte" / f"train-{number:05}-of-00002.parquet", index=False)
    assert load_glue(task, ["train"], str(tmp_path))["train"]["idx"][:] == list(range(len(made)))


def write_pieces(folder, *names):
    for name in names:
        made_glue.examples("rte", "train").to_parquet(folder / f"train-{name}.parquet", index=False)


def test_a_split_with_a_piece_missing_or_too_many_is_refused(tmp_path):
    write_pieces(tmp_path, "00000-of-00004", "00002-of-00004")
    with pytest.raises(ValueError, match=r"train-00001-of-00004\.parquet, train-00003-of-00004\.parquet missing"):
        load_glue(TASKS["rte"], ["train"], str(tmp_path))
    # The hash is of the names that the Hub had once.
    write_pieces(tmp_path, "00001-of-00004-0a1b2c", "00003-of-00004")
    assert len(load_glue(TASKS["rte"], ["train"], str(tmp_path))["train"]) == 4 * made_glue.SIZES["train"]
    write_pieces(tmp_path, "00000-of-00001")
    with pytest.raises(ValueError, match="remove what is none of them"):
        load_glue(TASKS["rte"], ["train"], str(tmp_path))


def test_a_damaged_parquet_file_is_named(tmp_path):
    (tmp_path / "train.parquet").write_text("404: not found")
    with pytest.raises(ValueError, match=r"train\.parquet: cannot be read as parquet"):
        load_glue(TASKS["rte"], ["train"], str(tmp_path))


@pytest.mark.parametrize(("name", "labels"), [("rte", ["entailment"]), ("rte", [0.5]), ("stsb", ["4.5"])])
def test_labels_that_are_no_numbers_of_the_task_are_named(name, labels, tmp_path):
    table = made_glue.examples(name, "train").head(1).assign(label=labels)
    table.to_parquet(tmp_path / "train.parquet", index=False)
    with pytest.raises(ValueError, match=r"train\.parquet: column 'label' has .*; its labels must be"):
        load_glue(TASKS[name], ["train"], str(tmp_path))


def test_raw_mrpc_is_split_by_the_official_list(tmp_path):
    head = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String"
    rows = [f"{i % 2}\t{100 + i}\t{200 + i}\tfirst {i}\tsecond {i}" for i in range(6)]
    for file, lines in ((MRPC_RAW["train"], rows[:4]), (MRPC_RAW["test"], rows[4:])):
        (tmp_path / file).write_text("\n".join([head, *lines]) + "\n", encoding="utf-8-sig")
    with pytest.raises(ValueError, match=rf"{MRPC_DEV_IDS} is missing"):
        load_glue(TASKS["mrpc"], ["train"], str(tmp_path))

    (tmp_path / MRPC_DEV_IDS).write_text("101\t201\n999\t999\n")
    loaded = load_glue(TASKS["mrpc"], ["train", "validation", "test"], str(tmp_path))
    assert loaded["train"]["sentence1"][:] == ["first 0", "first 2", "first 3"]
    assert loaded["train"]["label"][:] == [0, 0, 1]
    assert loaded["validation"]["sentence2"][:] == ["second 1"]
    assert loaded["test"]["sentence1"][:] == ["first 4", "first 5"]
    assert loaded["test"]["label"][:] == [-1, -1]


@pytest.fixture
def copy(tsv_folder, tmp_path):
    def copy(name: str):
        return shutil.copytree(tsv_folder / made_glue.FOLDERS[name], tmp_path / made_glue.FOLDERS[name])

    return copy


def append(path, line):
    path.write_text(path.read_text(encoding="utf-8") + line, encoding="utf-8")


def test_a_line_with_too_few_columns_is_left_out_of_training_but_never_of_a_submission(copy):
    folder = copy("qqp")
    append(folder / "train.tsv", "99\t1\t2\tonly one question\n")
    loaded = load_glue(TASKS["qqp"], ["train"], str(folder))
    assert len(loaded["train"]) == made_glue.SIZES["train"]
    append(folder / "test.tsv", "99\tonly one question\n")
    with pytest.raises(
        ValueError, match=r"test\.tsv: 1 line\(s\) without the 3 columns of the first one, line 9 with 2"
    ):
        load_glue(TASKS["qqp"], ["test"], str(folder))


def test_a_label_that_the_task_does_not_have_is_refused(copy):
    folder = copy("rte")
    append(folder / "train.tsv", "99\tone\ttwo\tperhaps\n")
    with pytest.raises(ValueError, match="label 'perhaps' of example 24 is not one of rte's"):
        load_glue(TASKS["rte"], ["train"], str(folder))
    folder = copy("sst2")
    append(folder / "train.tsv", "a sentence\t7\n")
    with pytest.raises(ValueError, match="has labels from 0 to 7 instead of 0 to 1"):
        load_glue(TASKS["sst2"], ["train"], str(folder))


def test_the_test_split_in_the_place_of_another_is_noticed(tmp_path):
    made_glue.examples("sst2", "test").to_parquet(tmp_path / "validation.parquet", index=False)
    with pytest.raises(ValueError, match="validation split of sst2 has labels from -1 to -1"):
        load_glue(TASKS["sst2"], ["validation"], str(tmp_path))


def test_a_missing_column_is_named(tmp_path, copy):
    made_glue.examples("rte", "train").drop(columns="sentence2").to_parquet(tmp_path / "train.parquet", index=False)
    with pytest.raises(ValueError, match=r"train\.parquet: no column sentence2; it has: sentence1, label, idx"):
        load_glue(TASKS["rte"], ["train"], str(tmp_path))
    folder = copy("stsb")
    header, rest = (folder / "dev.tsv").read_text(encoding="utf-8").split("\n", 1)
    (folder / "dev.tsv").write_text(header.replace("score", "points") + "\n" + rest, encoding="utf-8")
    with pytest.raises(ValueError, match=r"dev\.tsv: no column score; it has: index"):
        load_glue(TASKS["stsb"], ["validation"], str(folder))


def test_classes_in_another_order_are_refused(tmp_path):
    from datasets import ClassLabel, Dataset

    table = made_glue.examples("rte", "train")
    dataset = Dataset.from_pandas(table).cast_column("label", ClassLabel(names=["not_entailment", "entailment"]))
    dataset.to_parquet(tmp_path / "train.parquet")
    with pytest.raises(ValueError, match=r"its classes are .'not_entailment', 'entailment'., those of rte"):
        load_glue(TASKS["rte"], ["train"], str(tmp_path))


def test_missing_folders_and_files_are_named(parquet_folder, tmp_path):
    with pytest.raises(ValueError, match="gone': no such folder"):
        load_glue(TASKS["cola"], ["train"], str(tmp_path / "gone"))
    with pytest.raises(ValueError, match=r"no train split of cola. Looked for train\.parquet, .*train\.tsv"):
        load_glue(TASKS["cola"], ["train"], str(tmp_path))
    with pytest.raises(ValueError, match="is the folder of sst2, but task_name='cola'"):
        load_glue(TASKS["cola"], ["train"], str(parquet_folder / "sst2"))


def test_mnli_without_mismatched_splits_is_evaluated_on_the_matched_one(tmp_path, caplog):
    pd.DataFrame(made_glue.examples("mnli", "validation_matched")).to_parquet(tmp_path / "validation_matched.parquet")
    loaded = load_glue(TASKS["mnli"], ["validation_matched", "validation_mismatched"], str(tmp_path))
    assert list(loaded) == ["validation_matched"]
    assert "no validation_mismatched split of mnli" in caplog.text


def test_an_unreachable_hub_says_what_to_do():
    with pytest.raises(ValueError, match=r"nyu-mll/glue \(cola, train\) cannot be loaded .* give --data_dir"):
        load_glue(TASKS["cola"], ["train"])


def test_task_names_of_the_hub_and_of_the_archives_are_known():
    assert [find_task(name).name for name in made_glue.FOLDERS.values()] == list(made_glue.FOLDERS)
    with pytest.raises(ValueError, match=r"task_name='mprc': did you mean 'mrpc'\?"):
        find_task("mprc")


@pytest.mark.parametrize("source", ["parquet_folder", "tsv_folder"])
def test_a_split_from_files_knows_its_name(source, request):
    """The model card says on which split a model was evaluated."""
    splits = load_glue(TASKS["mrpc"], ["train", "validation"], str(request.getfixturevalue(source)))
    assert {name: str(dataset.split) for name, dataset in splits.items()} == {
        "train": "train",
        "validation": "validation",
    }
