"""Every way in which a checkpoint can be cut off or damaged is found and named; a whole one, of whoever, is not."""

import json
import os
import shutil

import pytest
import torch

from hf_sam import get_last_checkpoint
from hf_sam.checkpoints import manifest
from hf_sam.checkpoints.manifest import BLOCK_BYTES, BLOCKS, MANIFEST_NAME, why_not_whole
from hf_sam.checkpoints.resume import choose, list_checkpoints
from tests import harness


SAVING = {"save_strategy": "steps", "save_steps": 2, "max_steps": 6}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """SAMPa's checkpoints 2, 4 and 6, and those of the stock Trainer."""
    folder = tmp_path_factory.mktemp("trained")
    harness.train(harness.Run(method="sampa", arguments=SAVING), folder / "ours")
    harness.train(harness.Run(trainer="stock", arguments=SAVING), folder / "stock")
    return folder


@pytest.fixture
def output_dir(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "copy")
    return tmp_path / "copy" / "ours"


@pytest.fixture
def checkpoint(output_dir):
    return output_dir / "checkpoint-6"


def files_of(checkpoint):
    return sorted(path for path in checkpoint.iterdir() if path.name != MANIFEST_NAME)


def test_a_checkpoint_is_whole_and_its_manifest_knows_every_file(checkpoint):
    assert why_not_whole(checkpoint) is None
    content = json.loads((checkpoint / MANIFEST_NAME).read_text())
    assert content["ranks"] == 1
    assert {name: entry["bytes"] for name, entry in content["files"].items()} == {
        path.name: path.stat().st_size for path in files_of(checkpoint)
    }
    assert {"model.safetensors", "optimizer.pt", "rng_state.pth", "sam_state.safetensors", "trainer_state.json"} < set(
        content["files"]
    )


def test_each_file_that_is_missing_cut_off_or_changed_is_named(checkpoint):
    for path in files_of(checkpoint):
        before = path.read_bytes()
        path.unlink()
        assert why_not_whole(checkpoint).startswith(f"{path.name} is missing")
        path.write_bytes(before[:-1])
        assert f"{path.name} has {len(before) - 1} bytes of {len(before)}" in why_not_whole(checkpoint)
        path.write_bytes(bytes(len(before)))
        assert f"{path.name} is not what was written" in why_not_whole(checkpoint)
        assert why_not_whole(checkpoint, hashes=False) is None
        path.write_bytes(before)
    assert why_not_whole(checkpoint) is None


def test_files_that_were_added_do_not_matter_and_a_changed_one_is_taken_without_the_manifest(checkpoint):
    (checkpoint / "notes.txt").write_text("mine")
    assert why_not_whole(checkpoint) is None
    state = json.loads((checkpoint / "trainer_state.json").read_text())
    (checkpoint / "trainer_state.json").write_text(json.dumps(state | {"save_steps": 3}))
    assert f"remove {MANIFEST_NAME}" in why_not_whole(checkpoint)
    (checkpoint / MANIFEST_NAME).unlink()
    assert why_not_whole(checkpoint) is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"complete": true, "files": {"a": 1}}', "\0\0\0"])
def test_a_manifest_that_cannot_be_read_is_not_one(content, checkpoint):
    (checkpoint / MANIFEST_NAME).write_text(content)
    assert f"{MANIFEST_NAME} cannot be read" in why_not_whole(checkpoint)


def test_the_mark_stands_until_the_last_file_is_written(checkpoint):
    manifest.begin(checkpoint)
    assert "cut off" in why_not_whole(checkpoint)
    manifest.finish(checkpoint, ranks=2)
    assert why_not_whole(checkpoint) is None
    manifest.begin(checkpoint.parent / "checkpoint-8")
    assert "cut off" in why_not_whole(checkpoint.parent / "checkpoint-8")


@pytest.mark.parametrize("whose", ["ours", "stock"])
def test_without_a_manifest_a_whole_checkpoint_is_taken_and_a_cut_one_is_not(whose, output_dir):
    checkpoint = output_dir.parent / whose / "checkpoint-6"
    (checkpoint / MANIFEST_NAME).unlink(missing_ok=True)
    assert why_not_whole(checkpoint) is None
    for path in files_of(checkpoint):
        if path.name != "sam_config.json":
            before = path.read_bytes()
            for length in (0, len(before) // 2, len(before) - 2):
                path.write_bytes(before[:length])
                assert path.name in why_not_whole(checkpoint), (path.name, length)
            path.write_bytes(before)
    (checkpoint / "trainer_state.json").unlink()
    assert why_not_whole(checkpoint) == "trainer_state.json is missing"


def test_a_random_state_that_a_rank_had_not_written_counts(output_dir):
    checkpoint = output_dir.parent / "stock" / "checkpoint-6"
    (checkpoint / "rng_state.pth").rename(checkpoint / "rng_state_0.pth")
    assert why_not_whole(checkpoint) == "rng_state_1.pth is missing"
    shutil.copy(checkpoint / "rng_state_0.pth", checkpoint / "rng_state_1.pth")
    assert why_not_whole(checkpoint) is None
    (checkpoint / "rng_state_1.pth").rename(checkpoint / "rng_state_2.pth")
    assert why_not_whole(checkpoint) == "rng_state_1.pth is missing"


def test_a_missing_shard_of_the_weights_is_named(output_dir):
    checkpoint = output_dir.parent / "stock" / "checkpoint-6"
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (checkpoint / "model.safetensors").rename(checkpoint / shards["a"])
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    assert why_not_whole(checkpoint) == f"{shards['b']} is missing"


def test_large_files_are_told_by_blocks_from_the_first_to_the_last(tmp_path):
    path = tmp_path / "large"
    size = 3 * BLOCKS * BLOCK_BYTES
    with open(path, "wb") as file:
        file.truncate(size)
    prints = {manifest.fingerprint(path)}
    for position in (0, (size - BLOCK_BYTES) // (BLOCKS - 1), size - 1):
        with open(path, "r+b") as file:
            file.seek(position)
            file.write(b"x")
        prints.add(manifest.fingerprint(path))
    assert len(prints) == 4
    os.truncate(path, BLOCKS * BLOCK_BYTES)
    before = manifest.fingerprint(path)
    with open(path, "r+b") as file:
        file.seek(BLOCKS * BLOCK_BYTES // 2 + 1)
        file.write(b"x")
    assert manifest.fingerprint(path) != before


def test_the_last_whole_one_is_taken_and_those_after_it_are_named(output_dir, caplog):
    assert get_last_checkpoint(output_dir) == str(output_dir / "checkpoint-6")
    assert not caplog.text
    (output_dir / "checkpoint-6" / "optimizer.pt").unlink()
    manifest.begin(output_dir / "checkpoint-10")
    assert get_last_checkpoint(output_dir) == str(output_dir / "checkpoint-4")
    assert "checkpoint-6: optimizer.pt is missing" in caplog.text
    assert "checkpoint-10: saving was cut off" in caplog.text
    shutil.rmtree(output_dir)
    assert get_last_checkpoint(output_dir) is None


def test_what_can_be_asked_for(output_dir):
    def chosen(wanted):
        return choose(wanted, str(output_dir), why_not_whole, list_checkpoints(output_dir))

    paths = {step: str(output_dir / f"checkpoint-{step}") for step in (2, 4, 6)}
    assert chosen(None) is chosen(False) is None
    assert chosen(True) == chosen("auto") == chosen(paths[6]) == paths[6]
    assert chosen(paths[2]) == paths[2]
    with pytest.raises(ValueError, match="elsewhere' is not a whole checkpoint: there is no such folder"):
        chosen("elsewhere")

    manifest.begin(paths[6])
    # A script that looks for the last folder by itself passes this one.
    assert chosen(True) == chosen("auto") == chosen(paths[6]) == chosen(output_dir / "checkpoint-6") == paths[4]
    manifest.begin(paths[2])
    with pytest.raises(ValueError, match="checkpoint-2' is not a whole checkpoint: saving was cut off"):
        chosen(paths[2])

    manifest.begin(paths[4])
    assert chosen("auto") is None
    with pytest.raises(ValueError, match=r"no whole checkpoint.*checkpoint-6: saving.*checkpoint-2: saving"):
        chosen(True)
    shutil.rmtree(output_dir)
    with pytest.raises(ValueError, match=r"resume_from_checkpoint=True: no whole .*there are no checkpoints"):
        chosen(True)


def test_the_order_is_that_of_the_steps(tmp_path):
    for name in ("checkpoint-9", "checkpoint-10", "checkpoint-x", "checkpoint-11-old", "runs"):
        (tmp_path / name).mkdir()
    (tmp_path / "checkpoint-12").write_text("a file")
    assert [os.path.basename(path) for path in list_checkpoints(tmp_path)] == ["checkpoint-10", "checkpoint-9"]


def test_weights_that_were_saved_by_any_torch_are_not_judged_by_their_format(output_dir):
    checkpoint = output_dir.parent / "stock" / "checkpoint-6"
    state = torch.load(checkpoint / "optimizer.pt")
    torch.save(state, checkpoint / "optimizer.pt", _use_new_zipfile_serialization=False)
    assert why_not_whole(checkpoint) is None
