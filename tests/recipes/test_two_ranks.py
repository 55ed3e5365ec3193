"""torchrun with two ranks trains one model, on the batches that one process with the whole batch would see."""

import json

import pytest
import torch
from safetensors.torch import load_file

import run_glue
from tests.distributed.launch import start


def outcome(folder):
    state = json.loads((folder / "trainer_state.json").read_text())
    results = json.loads((folder / "all_results.json").read_text())
    return load_file(folder / "model.safetensors"), state, results


# A pair of SAMPa's ranks reads one shard, so its total batch is that of one rank.
@pytest.mark.parametrize(("method", "per_rank"), [("sam", 4), ("sampa-0.1", 8)])
def test_two_ranks_equal_one_process_with_the_same_total_batch(
    method, per_rank, parquet_folder, model_folder, recipes, tmp_path
):
    common = [str(recipes / "glue" / "rte" / f"{method}.yaml"), "--ascent_scope", "global", "--learning_rate", "1e-3"]
    common += ["--data_dir", str(parquet_folder), "--model_name_or_path", str(model_folder), "--num_train_epochs", "2"]
    # The gradient of BERT's key bias is nothing but rounding, and AdamW's usual epsilon would make a full step of it.
    common += ["--adam_epsilon", "1e-4"]
    run_glue.main([*common, "--output_dir", str(tmp_path / "one"), "--per_device_train_batch_size", "8"])
    batch = ["--per_device_train_batch_size", str(per_rank)]
    two = [str(recipes / "run_glue.py"), *common, "--output_dir", str(tmp_path / "two"), *batch]
    done = start(2, two, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:]

    weights, state, results = outcome(tmp_path / "one")
    for name, weight in outcome(tmp_path / "two")[0].items():
        torch.testing.assert_close(weight, weights[name], atol=2e-5, rtol=0, msg=lambda text, at=name: f"{at}: {text}")
    _, state_of_two, results_of_two = outcome(tmp_path / "two")
    assert state_of_two["global_step"] == state["global_step"] == 6
    assert results_of_two["train_samples"] == results["train_samples"] == 24
    # 13 examples on two ranks: the last batch is filled up with a repeated example, which must not be counted.
    assert results_of_two["eval_samples"] == results["eval_samples"] == 13
    assert results_of_two["eval_accuracy"] == results["eval_accuracy"]
    # The Trainer does count it within the mean loss of its batch, so the loss is not quite the same.
    assert results_of_two["eval_loss"] == pytest.approx(results["eval_loss"], abs=5e-3)
    assert done.stdout.count("cannot be reached and is not in the cache") == 1
