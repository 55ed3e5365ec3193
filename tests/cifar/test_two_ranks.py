"""The recipe under torchrun, with workers, crops, flips and wrong labels, trains the model that one process trains."""

import json

import pytest
import torch
from safetensors.torch import load_file

import run_cifar
from tests.distributed.launch import start


# A pair of SAMPa's ranks reads one shard, so its total batch is that of one rank.
@pytest.mark.parametrize(("recipe", "workers"), [("cifar10/sampa-0.2.yaml", "2"), ("cifar100/sampa-0.yaml", "1")])
def test_sampa_on_two_ranks_equals_one_process(recipe, workers, parquet_folder, model_folder, recipes, tmp_path):
    common = [str(recipes / "cifar" / recipe), "--use_cpu", "--disable_tqdm", "true", "--report_to", "none"]
    common += ["--model_name_or_path", str(model_folder), "--from_scratch", "--data_dir", str(parquet_folder)]
    common += ["--dataloader_num_workers", workers, "--dataloader_pin_memory", "false", "--label_noise", "0.4"]
    common += ["--per_device_train_batch_size", "8", "--learning_rate", "1e-3", "--num_train_epochs", "2"]
    one, two = ([*common, "--output_dir", str(tmp_path / name)] for name in ("one", "two"))
    run_cifar.main(one)
    done = start(2, [str(recipes / "run_cifar.py"), *two], timeout=300)
    assert done.returncode == 0, done.stdout[-3000:]

    results, weights = {}, {}
    for name in ("one", "two"):
        results[name] = json.loads((tmp_path / name / "all_results.json").read_text())
        weights[name] = load_file(tmp_path / name / "model.safetensors")
    for name, weight in weights["two"].items():
        torch.testing.assert_close(weight, weights["one"][name], atol=1e-5, rtol=0)
    assert results["two"]["eval_samples"] == results["one"]["eval_samples"] == 25
    assert results["two"]["eval_accuracy"] == results["one"]["eval_accuracy"]
    assert results["two"]["train_loss"] == pytest.approx(results["one"]["train_loss"], abs=1e-5)
