"""The benchmarks measure what they say: bytes against counts by hand and by the allocator, times and bytes sent."""

import gc
import importlib
import json
import statistics
import sys
import threading
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function

from hf_sam import lookahead


BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def _benchmarks_on_path(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def test_live_bytes_of_a_linear_layer_by_hand():
    from live_bytes import LiveBytes

    with LiveBytes() as counter:
        model = nn.Linear(100, 50, bias=False)
        optimizer = torch.optim.AdamW(model.parameters(), fused=True)
        inputs = torch.zeros(10, 100)
        weights, batch, outputs = 4 * 100 * 50, 4 * 10 * 100, 4 * 10 * 50
        assert counter.live == weights + batch

        hidden = model(inputs)
        loss = hidden.sum()
        assert counter.live == weights + batch + outputs + 4
        loss.backward()
        # The gradient of the sum is one number, expanded; that of the weights stays.
        assert counter.live == 2 * weights + batch + outputs + 4
        del hidden, loss
        assert counter.live == 2 * weights + batch
        counter.reset_peak()
        optimizer.step()
        # Two moments, and the count of steps in fp32.
        assert counter.live == counter.peak == 4 * weights + batch + 4
        optimizer.zero_grad()
        assert counter.live == 3 * weights + batch + 4
        assert counter.peak == 4 * weights + batch + 4
        del model, optimizer, inputs
        gc.collect()
        assert counter.live == 0


def test_live_bytes_follow_views_resizes_and_threads():
    from live_bytes import LiveBytes

    kept = []
    with LiveBytes() as counter:
        whole = torch.empty(1000)
        part = whole.view(10, 100)[3]
        assert counter.live == 4000
        del whole
        assert counter.live == 4000
        del part
        assert counter.live == 0
        grown = torch.empty(10)
        grown.resize_(50)
        assert counter.live == 200

        thread = threading.Thread(target=lambda: kept.append(torch.empty(25)))
        thread.start()
        thread.join()
        assert counter.live == 300
    unseen = torch.empty(10)
    assert (counter.live, unseen.nbytes) == (300, 40)
    assert threading.Thread.run.__module__ == "threading"


def test_live_bytes_agree_with_the_allocator_on_training_steps():
    from live_bytes import LiveBytes
    from workload import TINY, RandomTokens

    def train(before_last_step):
        model = TINY.build()
        optimizer = torch.optim.AdamW(model.parameters(), fused=True)
        examples = RandomTokens(4, TINY)
        batch = {key: torch.stack([examples[i][key] for i in range(4)]) for key in examples[0]}
        for step in range(3):
            if step == 2:
                before_last_step()
            model(**batch).loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()

    def mark():
        with record_function("last step"):
            pass

    with LiveBytes() as counter:
        train(counter.reset_peak)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        train(mark)
    events = profiled.profiler.kineto_results.events()
    start = next(e.start_ns() for e in events if e.name() == "last step")
    live = peak = 0
    for event in sorted((e for e in events if e.name() == "[memory]"), key=lambda e: e.start_ns()):
        live += event.nbytes()
        if event.start_ns() >= start:
            peak = max(peak, live)
    assert counter.peak == peak


def test_memory_of_the_methods_over_the_stock_trainer(monkeypatch):
    from memory import CASES, measure
    from workload import ModelSize, trainable_bytes

    # As small beside this model as the real one is beside a model of millions of parameters.
    monkeypatch.setitem(lookahead.CHUNK_ELEMENTS, "cpu", 2**8)
    # Parameters far larger than activations, as in fine-tuning at its tightest.
    size = ModelSize(hidden=64, layers=2, heads=2, intermediate=128, vocabulary=500, length=4)
    parameters = trainable_bytes(size.build())
    stock = measure("stock", size, batch_size=1)
    assert stock["bucket_bytes"] == 0
    # Weights, two moments and a gradient are alive when the optimizer steps.
    assert 4 * parameters < stock["peak_bytes"] < 4.2 * parameters
    assert measure("none", size, batch_size=1) == stock
    # The copy of the weights is what SAM cannot do without; SAMPa keeps a gradient, too.
    for case, least in (("sam", 0.8), ("sampa-1", 1.8)):
        extra = measure(CASES[case].method, size, batch_size=1)["peak_bytes"] - stock["peak_bytes"]
        assert least * parameters < extra <= CASES[case].parameters * parameters


def test_memory_of_the_methods_on_two_ranks():
    from memory import CASES, measure_apart, summarize
    from workload import ModelSize, trainable_bytes

    # Large beside the pieces in which the trial step copies the optimizer's state.
    size = ModelSize(hidden=64, layers=2, heads=2, intermediate=128, vocabulary=60_000, length=4)
    parameters = trainable_bytes(size.build())
    stock, ours = (measure_apart(method, 2, size, batch_size=1) for method in ("stock", "sampa"))
    # Under DDP the gradients are views of buckets, which stay.
    assert 4 * parameters < stock["peak_bytes"] < 5.2 * parameters
    assert 0 < stock["bucket_bytes"] <= parameters
    result = summarize("sampa-2", CASES["sampa-2"], ours, stock, parameters)
    assert result["extra_bytes"] > 0.8 * parameters
    assert result["extra_bytes"] <= result["allowed_bytes"]


def test_step_time_measures_ratios_and_bytes(tmp_path, monkeypatch, capsys):
    import step_time

    output = tmp_path / "step_time.json"
    command = ["step_time", "--tiny", "--rounds", "2", "--updates", "2", "--cases", "sampa-2", "--output", str(output)]
    monkeypatch.setattr(sys, "argv", command)
    step_time.main()
    printed = capsys.readouterr().out
    content = json.loads(output.read_text())
    (result,) = content["results"]
    pairs = zip(result["seconds"], result["seconds_over"], strict=True)
    assert result["ratios"] == [ours / theirs for ours, theirs in pairs]
    assert len(result["ratios"]) == 2
    assert result["ratio"] == statistics.median(result["ratios"])
    assert min(result["seconds"] + result["seconds_over"]) > 1e-4
    assert f"{result['ratio']:.3f}" in printed
    # On two ranks both the ring average and the swap in a pair send every gradient once.
    for sent in (result["bytes_sent_per_rank_and_update"], result["bytes_sent_per_rank_and_update_over"]):
        if sent is not None:
            assert content["trainable_bytes"] <= sent < 1.25 * content["trainable_bytes"]
    assert content["torch"] == torch.__version__
    assert content["cores"] >= 1
    assert len(content["git_commit"]) in (0, 40)


def test_methods_are_measured_and_told_on_the_page_of_methods(tmp_path, monkeypatch, capsys):
    from hf_sam import catalog

    output = tmp_path / "methods.json"
    cases = ["none", "looksam", "stale", "sam, momentum", "sam, vasso"]
    arguments = ["--tiny", "--rounds", "2", "--updates", "1", "--cases", *cases, "--output", str(output)]
    monkeypatch.setattr(sys, "argv", ["methods", *arguments])
    importlib.import_module("methods").main()
    printed, content = capsys.readouterr().out, json.loads(output.read_text())
    results = {(r["name"], r["model"]): r for r in content["results"]}
    assert list(results) == [(name, model) for model in ("BERT", "ViT") for name in cases]
    gradients = {"none": 1.0, "looksam": 1.2, "stale": 2.01, "sam, momentum": 1.0, "sam, vasso": 2.0}
    memory = {"none": 0, "looksam": 3, "stale": 2, "sam, momentum": 1, "sam, vasso": 2}
    for (name, _), result in results.items():
        assert result["gradients"] == pytest.approx(gradients[name])
        assert result["sequential"] == pytest.approx(gradients[name] / (2 if name == "stale" else 1))
        assert result["memory"] == pytest.approx(memory[name], abs=0.3)
        assert result["time"] == statistics.median(result["ratios"])
        assert f"{result['time']:.2f}" in printed
    assert output.with_suffix(".png").stat().st_size > 10_000
    monkeypatch.setattr(catalog, "MEASURED", output)
    time, extra = (results["looksam", "ViT"][key] for key in ("time", "memory"))
    assert f"| `looksam` | ViT | 1.20 | 1.20 | {time:.2f} | {extra:.2f} |" in catalog.page()


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("step_time", ["--rounds", "0"], "--rounds: must be at least 1, got 0"),
        ("step_time", ["--cases", "sma"], "invalid choice: 'sma'"),
        ("memory", ["--cases", "sampa-3"], "invalid choice: 'sampa-3'"),
        ("memory", ["--batch", "3"], "unrecognized arguments: --batch"),
    ],
)
def test_wrong_options_are_refused(script, arguments, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(script).main()
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_a_worker_refuses_another_world_size(monkeypatch):
    from workload import require_world_size

    monkeypatch.setenv("WORLD_SIZE", "1")
    require_world_size(1)
    with pytest.raises(RuntimeError, match="started for 2 ranks, but WORLD_SIZE is 1"):
        require_world_size(2)
