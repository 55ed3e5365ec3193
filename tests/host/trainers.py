"""Trainers and data sets as users write them: hooks of Trainer that do more, or other things, than the host's own."""

import random
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset
from transformers import Trainer

from tests.host import setups


class Notes(list):
    """Kept over all passes. What is a list and no more would be put back after a pass that does not count."""


class Recording(Trainer):
    """Notes, for each micro-batch whose gradient is computed, which rows it holds, and what they say."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.seen: list[list[int]] = Notes()
        self.checksums: list[int] = Notes()
        self.sizes: list[int] = Notes()

    def training_step(self, model, inputs, num_items_in_batch=None):
        self.seen.append(inputs.pop("index").tolist())
        ids = inputs["input_ids"]
        self.sizes.append(ids.numel())
        self.checksums.append(int((ids * torch.arange(1, ids.shape[1] + 1)).sum()))
        return super().training_step(model, inputs, num_items_in_batch)


class WithOwnHooks(Trainer):
    """Overrides what trl's and sentence-transformers' trainers override; the numbers are those of Trainer."""

    def __init__(self, *args, prepare_loader: bool = True, **kwargs):
        super().__init__(*args, **kwargs)
        self.prepare_loader = prepare_loader
        self.entropies: list[float] = []
        self.steps_taken = 0

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        inputs.pop("index", None)
        inputs["use_cache"] = False
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        distribution = torch.distributions.Categorical(logits=outputs.logits.detach())
        self.entropies.append(float(distribution.entropy().mean()))
        return (loss, outputs) if return_outputs else loss

    def training_step(self, model, inputs, *args, **kwargs):
        self.steps_taken += 1
        assert isinstance(inputs, dict)
        return super().training_step(model, inputs, *args, **kwargs)

    def get_train_dataloader(self):
        loader = DataLoader(
            self.train_dataset, batch_size=self.args.train_batch_size, collate_fn=self.data_collator, shuffle=False
        )
        return self.accelerator.prepare(loader) if self.prepare_loader else loader

    def log(self, logs: dict[str, float], *rest: Any) -> None:
        if "loss" in logs:
            logs["entropy"] = sum(self.entropies) / len(self.entropies)
            self.entropies.clear()
        super().log(logs, *rest)


class WithOwnLoss(Trainer):
    """Computes a mean over the micro-batch by itself, without a look at `num_items_in_batch`."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        loss = nn.functional.cross_entropy(outputs.logits, labels)
        return (loss, outputs) if return_outputs else loss


class Augmented(Dataset):
    """Three ids of a row are drawn anew each time that it is read, each from another source of random numbers."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        ids = list(self.rows[index]["input_ids"])
        ids[0] = int(torch.randint(2, setups.VOCABULARY, ()))
        ids[1] = int(np.random.randint(2, setups.VOCABULARY))
        ids[2] = random.randrange(2, setups.VOCABULARY)
        return self.rows[index] | {"input_ids": ids}


class Stream(IterableDataset):
    """Rows without a length. `passes` is how often it can be read; `None` means without end."""

    def __init__(self, rows, passes: int | None = None):
        self.rows, self.passes = rows, passes

    def __iter__(self):
        if self.passes is not None:
            if not self.passes:
                return
            self.passes -= 1
        yield from self.rows


def collate_with_index(rows):
    return setups.collate_for_classification(rows) | {"index": torch.tensor([row["index"] for row in rows])}


class WithCollective(Trainer):
    """Exchanges something between all ranks whenever it computes a loss, without asking the accelerator."""

    def compute_loss(self, model, inputs, *args, **kwargs):
        if dist.is_initialized():
            ranks = torch.ones(())
            dist.all_reduce(ranks)
            assert ranks == dist.get_world_size()
        return super().compute_loss(model, inputs, *args, **kwargs)


class OrderOfEpoch:
    """Batches of two rows, in another order in each epoch that it is told of."""

    def __init__(self, rows: int):
        self.rows, self.epoch, self.batch_size, self.drop_last = rows, 0, 2, False

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.rows // 2

    def __iter__(self):
        order = torch.randperm(self.rows, generator=torch.Generator().manual_seed(self.epoch)).tolist()
        return iter([order[start : start + 2] for start in range(0, self.rows, 2)])


class WithOwnBatches(Recording):
    """Deals batches of a sampler of its own, as sentence-transformers does."""

    def get_train_dataloader(self):
        self.accelerator.even_batches = False
        loader = DataLoader(
            self.train_dataset, batch_sampler=OrderOfEpoch(len(self.train_dataset)), collate_fn=self.data_collator
        )
        return self.accelerator.prepare(loader)
