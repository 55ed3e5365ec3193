"""What cannot work together is refused when the trainer is made, by name, with what to use instead."""

import re

import pytest
import torch
from accelerate.utils import DDPCommunicationHookType, DistributedDataParallelKwargs

from hf_sam import SAMConfig, validation
from tests.distributed.launch import REPOSITORY, start
from tests.host import setups


def refused(trainer, config, *parts):
    with pytest.raises(ValueError, match=re.escape(f"SAMConfig.method={config.method!r}")) as raised:
        validation.check_compatibility(trainer, config)
    assert all(part in str(raised.value) for part in parts), raised.value


@pytest.fixture
def trainer(tmp_path):
    """One that is accepted; tests change one thing about it, as another environment would."""
    trainer = setups.make_trainer(setups.classifier(), setups.sentences(8), tmp_path, SAMConfig())
    for config in (SAMConfig(), SAMConfig(method="sampa"), SAMConfig(ascent_scope="micro_batch")):
        validation.check_compatibility(trainer, config)
    return trainer


class TwoRanks:
    """The arguments, as they are on one of two ranks."""

    world_size = 2

    def __init__(self, arguments, **changed):
        self.__dict__.update(arguments=arguments, **changed)

    def __getattr__(self, name):
        return getattr(self.arguments, name)


@pytest.mark.parametrize("method", ["sam", "sampa"])
@pytest.mark.parametrize("engine", ["fsdp", "deepspeed"])
def test_sharded_engines(engine, method, trainer):
    setattr(trainer, f"is_{engine}_enabled", True)
    refused(trainer, SAMConfig(method=method), engine, "use DistributedDataParallel", "method='none'")
    validation.check_compatibility(trainer, SAMConfig(method="none"))


@pytest.mark.parametrize("method", ["sam", "sampa"])
def test_a_model_that_is_sharded_over_ranks(method, trainer):
    trainer.get_tp_size = lambda: 2
    refused(trainer, SAMConfig(method=method), "sharded over ranks", "load it whole", "method='none'")
    trainer.get_tp_size = lambda: 1
    trainer.is_distributed_loading_by_transformers = True
    refused(trainer, SAMConfig(method=method), "sharded over ranks", "load it whole", "method='none'")


def test_views_into_the_buckets_of_ddp(trainer):
    trainer.accelerator.ddp_handler = DistributedDataParallelKwargs(gradient_as_bucket_view=True)
    validation.check_compatibility(trainer, SAMConfig(ascent_scope="micro_batch"))
    trainer.args = TwoRanks(trainer.args)
    refused(
        trainer,
        SAMConfig(ascent_scope="micro_batch"),
        "ascent_scope='micro_batch'",
        "gradient_as_bucket_view=True",
        "leave it False",
        "ascent_scope='rank'",
    )
    for scope in ("rank", "global"):
        validation.check_compatibility(trainer, SAMConfig(ascent_scope=scope))


def test_batches_that_rank_0_reads_for_all(trainer):
    trainer.accelerator.dataloader_config.dispatch_batches = True
    validation.check_compatibility(trainer, SAMConfig(method="sampa"))
    trainer.args = TwoRanks(trainer.args)
    refused(
        trainer, SAMConfig(method="sampa"), "dispatch_batches=True", "accelerator_config", "set it to False or None"
    )
    validation.check_compatibility(trainer, SAMConfig())


def test_a_sampler_that_splits_the_data_by_itself(trainer):
    trainer.args = TwoRanks(trainer.args, train_sampling_strategy="batch_rebalance")
    refused(trainer, SAMConfig(method="sampa"), "train_sampling_strategy='batch_rebalance'", "'group_by_length'")
    validation.check_compatibility(trainer, SAMConfig())


def test_another_gradient_exchange(trainer):
    handler = DistributedDataParallelKwargs(comm_hook=DDPCommunicationHookType.BF16)
    trainer.accelerator.ddp_handler = handler
    validation.check_compatibility(trainer, SAMConfig(method="sampa"))
    trainer.args = TwoRanks(trainer.args)
    refused(trainer, SAMConfig(method="sampa"), "comm_hook='bf16'", "DistributedDataParallelKwargs", "at 'no'")
    validation.check_compatibility(trainer, SAMConfig())


def test_gradients_that_are_views_of_buckets(trainer):
    trainer.accelerator.ddp_handler = DistributedDataParallelKwargs(gradient_as_bucket_view=True)
    validation.check_compatibility(trainer, SAMConfig(method="sampa"))
    trainer.args = TwoRanks(trainer.args)
    refused(trainer, SAMConfig(method="sampa"), "gradient_as_bucket_view=True", "leave it False")


@pytest.mark.parametrize(
    ("config", "steps", "works"),
    [
        (SAMConfig(), 1, False),
        (SAMConfig(ascent_scope="micro_batch"), 1, False),
        (SAMConfig(ascent_scope="global"), 1, True),
        (SAMConfig(ascent_scope="global"), 2, False),
        (SAMConfig(method="sampa"), 1, True),
        (SAMConfig(method="sampa"), 2, False),
    ],
)
def test_a_static_graph_allows_no_pass_without_synchronisation(config, steps, works, trainer):
    trainer.args = TwoRanks(trainer.args, ddp_static_graph=True, gradient_accumulation_steps=steps)
    if works:
        validation.check_compatibility(trainer, config)
    else:
        refused(trainer, config, "ddp_static_graph=True", "leave it False")


def test_statistics_over_ranks_that_hold_different_weights(trainer):
    trainer.model.norm = torch.nn.SyncBatchNorm(4)
    validation.check_compatibility(trainer, SAMConfig(method="sampa"))
    trainer.args = TwoRanks(trainer.args)
    refused(trainer, SAMConfig(method="sampa"), "SyncBatchNorm", "use BatchNorm")
    validation.check_compatibility(trainer, SAMConfig())


class ZeroRedundancyOptimizer(torch.optim.SGD):
    """By its name the one of torch, which cannot be made without other processes."""


def test_an_optimizer_whose_step_waits_for_all_ranks(trainer):
    trainer.optimizer = ZeroRedundancyOptimizer(trainer.model.parameters(), lr=0.1)
    validation.check_compatibility(trainer, SAMConfig(method="sampa"))
    trainer.args = TwoRanks(trainer.args)
    refused(trainer, SAMConfig(method="sampa"), "ZeroRedundancyOptimizer", "set lookahead='gradient'")
    for config in (SAMConfig(), SAMConfig(method="sampa", lookahead="gradient")):
        validation.check_compatibility(trainer, config)


def test_processes_that_do_not_see_each_other(trainer, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    refused(trainer, SAMConfig(), "2 processes were started (WORLD_SIZE)", "use_cpu=True")
    validation.check_compatibility(trainer, SAMConfig(method="none"))


def test_an_unwrapped_model_on_several_ranks():
    from hf_sam.parallel import PairExchange, Pairs

    with pytest.raises(ValueError, match=r"method='sampa'.*DistributedDataParallel, not Linear.*method='sam'"):
        PairExchange(Pairs(0, 2)).attach(torch.nn.Linear(2, 2), [])


ODD_SCRIPT = """
import sys
from hf_sam import SAMConfig
from tests.host import setups
setups.make_trainer(setups.classifier(), setups.sentences(8), sys.argv[1], SAMConfig(method="sampa"))
print("constructed")
"""


def test_three_ranks_are_told_how_many_to_start(tmp_path):
    """The job ends by itself, with the reason."""
    script = tmp_path / "odd.py"
    script.write_text(ODD_SCRIPT)
    completed = start(3, [str(script), str(tmp_path)], timeout=240)
    assert completed.returncode != 0
    assert "constructed" not in completed.stdout
    expected = "works in pairs of ranks, and 3 ranks were started: start 4 or 2 (torchrun --nproc_per_node)"
    assert expected in completed.stdout
    assert str(REPOSITORY) in completed.stdout  # A traceback of ours, not of the launcher alone.
