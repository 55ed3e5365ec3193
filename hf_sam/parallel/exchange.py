"""The collectives of SAMPa: in goes each rank's gradient, bucket by bucket as the backward pass completes it; out
come, on every rank, the mixed gradient in the bucket and the lookahead gradient in buffers of its own.

For each bucket of B bytes a rank takes part in an average over the K ranks of its role (2B(K - 1)/K bytes sent;
nothing for one pair) and swaps the result with its partner (B bytes sent). Nothing is flattened beyond the bucket.
"""

import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from .failures import ExchangeError
from .topology import Pairs, Role


class PairExchange:
    """
    Replaces the gradient average of `DistributedDataParallel` by the one of SAMPa.

    Args:
        pairs ([`Pairs`]): the place of this rank.

    Attributes:
        bytes_sent (`int`): bytes that this rank has sent for gradients so far (an all-reduce counted as a ring).
    """

    def __init__(self, pairs: Pairs):
        self.pairs = pairs
        self.bytes_sent = 0
        #: What went wrong in the exchange of this update, in another thread: the backward pass cannot say it.
        self.failure: ExchangeError | None = None
        # The model holds this object as its hook, so a reference back would keep both alive for ever.
        self._attached: weakref.ref[DistributedDataParallel] = lambda: None
        self._worker: ThreadPoolExecutor | None = None
        self._received: dict[tuple[torch.device, torch.dtype], Tensor] = {}
        self._streams: dict[torch.device, torch.Stream] = {}
        self._swap: Callable[[dist.GradBucket, Tensor], None] | None = None
        # What is done with the gradient of this rank alone, before it is averaged.
        self._keep: Callable[[dist.GradBucket, Tensor], None] | None = None

    def attach(self, model: nn.Module, weights: list[Tensor]) -> None:
        """
        Take over the gradients of `model`, the first time that it is seen.

        Raises:
            `ValueError`: `model` is not wrapped in `DistributedDataParallel`, its gradients are views of buckets, or
                some of the `weights` that are trained are not its own.
        """
        ddp = getattr(model, "_orig_mod", model)
        if not isinstance(ddp, DistributedDataParallel):
            raise ValueError(
                "SAMConfig.method='sampa' on several ranks needs the model in DistributedDataParallel, not "
                f"{type(ddp).__name__}: use it without FSDP or DeepSpeed, or use method='sam' on one rank."
            )
        if ddp is self._attached():
            return
        if ddp.gradient_as_bucket_view:
            raise ValueError(
                "SAMConfig.method='sampa' on several ranks cannot be combined with gradient_as_bucket_view=True: "
                "leave it False, since gradients are kept from one pass to the next."
            )
        foreign = len(set(weights) - set(ddp.parameters()))
        if foreign:
            raise ValueError(
                f"SAMConfig.method='sampa' on several ranks cannot train the {foreign} weights of the optimizer that "
                "are not in DistributedDataParallel, whose gradients nobody exchanges: make them a part of the model, "
                "or use method='sam'."
            )
        self.pairs.create_groups()
        ddp.register_comm_hook(self, PairExchange._reduce)
        # DDP would copy rank 0's buffers to all; the method moves them from the right role itself.
        ddp.broadcast_buffers = False
        self._attached = weakref.ref(ddp)

    @contextmanager
    def naming_failures(self) -> Iterator[None]:
        """
        Raises:
            `ExchangeError`: for what the backward pass raises when the exchange has failed, which does not say why.
        """
        self.failure = None
        try:
            yield
        except RuntimeError as error:
            if self.failure is None:
                raise
            raise self.failure from error

    def close(self) -> None:
        """End the thread, until it is needed again."""
        if self._worker is not None:
            self._worker.shutdown(wait=False)
            self._worker = None

    def average_over_world(self, own: dict[Tensor, Tensor] | None = None, loss_scale: Tensor | None = None) -> None:
        """
        From now on, every rank ends with the average over all ranks, and a PERTURBED one with its own gradient in
        `own`, if that is given (weight -> buffer, made where missing), without `loss_scale`.
        """
        self._swap = self._keep = None
        if own is not None and self.pairs.role is Role.PERTURBED:
            self._keep = lambda bucket, buffer: _put(bucket, bucket.gradients(), own, loss_scale)

    def mix(
        self,
        weight_of_lookahead: float,
        lookahead: dict[Tensor, Tensor],
        loss_scale: Tensor | None,
        of_pair: bool = False,
    ) -> None:
        """
        From now on, every rank ends with `(1 - λ) p + λ h` in its gradients, and with h in `lookahead`.

        Args:
            weight_of_lookahead (`float`): λ.
            lookahead (`dict[Tensor, Tensor]`): weight -> buffer for h without its loss scale, made where missing.
            loss_scale (`Tensor`, *optional*): factor that the gradients carry under fp16.
            of_pair (`bool`, *optional*, defaults to `False`): a PERTURBED rank gets in `lookahead` the h of its pair
                alone, which costs its partner one more message of the size of the bucket.
        """

        def swap(bucket: dist.GradBucket, own: Tensor) -> None:
            received = self._receive_buffer(own)
            self._send_and_receive(own, received)
            perturbed_here = self.pairs.role is Role.PERTURBED
            p, h = (own, received) if perturbed_here else (received, own)
            if not (perturbed_here and of_pair):
                _put(bucket, _shaped(bucket, own, h), lookahead, loss_scale)
            # The same call on the same two operands on both ranks of the pair: the same bits.
            torch.lerp(p, h, weight_of_lookahead, out=own)

        def pass_on(bucket: dist.GradBucket, own: Tensor) -> None:
            if self.pairs.role is Role.LOOKAHEAD:
                dist.send(own, self.pairs.partner, self.pairs.pair_group)
                self.bytes_sent += own.nbytes
                return
            received = self._receive_buffer(own)
            dist.recv(received, self.pairs.partner, self.pairs.pair_group)
            _put(bucket, _shaped(bucket, own, received), lookahead, loss_scale)

        self._swap, self._keep = swap, pass_on if of_pair else None

    def hand_over(self, tensors: Iterable[Tensor]) -> None:
        """The LOOKAHEAD rank of a pair gets the values that the PERTURBED one has in `tensors`."""
        source = self.pairs.rank if self.pairs.role is Role.PERTURBED else self.pairs.partner
        for tensor in tensors:
            dist.broadcast(tensor, source, self.pairs.pair_group)

    @staticmethod
    def _reduce(exchange: "PairExchange", bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
        """The hook that DDP calls when a bucket of gradients is complete, in the same order on all ranks."""
        buffer = bucket.buffer()
        if buffer.device.type == "cpu":
            # One thread works through the buckets in order while the backward pass goes on.
            future = torch.futures.Future()
            if exchange._worker is None:
                exchange._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="hf_sam-exchange")
            exchange._worker.submit(exchange._complete, future, bucket, buffer)
            return future
        # On an accelerator the order of a stream does the same, and no host waits.
        future = torch.futures.Future(devices=[buffer.device])
        device = torch.get_device_module(buffer.device)
        stream = exchange._streams.setdefault(buffer.device, device.Stream(buffer.device))
        stream.wait_stream(device.current_stream(buffer.device))
        buffer.record_stream(stream)
        exchange._complete(future, bucket, buffer, device.stream(stream))
        return future

    def _complete(self, future, bucket: dist.GradBucket, buffer: Tensor, stream=None) -> None:
        # Whatever fails here, in another thread, has to reach the backward pass that waits for the future.
        waiting_for = f"the gradients of the other {self.pairs.role.value} ranks"
        try:
            with torch.no_grad(), stream or nullcontext():
                if self._keep is not None:
                    self._keep(bucket, buffer)
                # Never over the default group, in which DDP talks of unused parameters at the same time.
                self._average(buffer, self.pairs.role_group)
                waiting_for = f"the gradient of its partner, rank {self.pairs.partner}"
                if self._swap is None:
                    self._average(buffer, self.pairs.pair_group)
                else:
                    self._swap(bucket, buffer)
                future.set_result(buffer)
        except Exception as error:
            self.failure = self.failure or ExchangeError(waiting_for, error)
            future.set_exception(error)

    def _receive_buffer(self, like: Tensor) -> Tensor:
        """Of the size of `like`, in memory as large as the largest bucket that is used again for every bucket."""
        key = like.device, like.dtype
        if key not in self._received or self._received[key].numel() < like.numel():
            self._received[key] = torch.empty_like(like)
        return self._received[key][: like.numel()]

    def _average(self, buffer: Tensor, group: dist.ProcessGroup | None) -> None:
        ranks = 1 if group is None else dist.get_world_size(group)
        if ranks > 1:
            buffer.div_(ranks)
            dist.all_reduce(buffer, group=group)
            self.bytes_sent += 2 * buffer.nbytes * (ranks - 1) // ranks

    def _send_and_receive(self, sent: Tensor, received: Tensor) -> None:
        group, partner = self.pairs.pair_group, self.pairs.partner
        operations = [dist.P2POp(dist.isend, sent, partner, group), dist.P2POp(dist.irecv, received, partner, group)]
        for work in dist.batch_isend_irecv(operations):
            work.wait()
        self.bytes_sent += sent.nbytes


def world_size() -> int:
    """The number of ranks; 1 without `torch.distributed`."""
    return dist.get_world_size() if dist.is_initialized() else 1


def average(tensors: Iterable[Tensor]) -> None:
    """In place, over all ranks, one collective for each of `tensors`; on a single process nothing."""
    if (ranks := world_size()) > 1:
        for tensor in tensors:
            tensor.div_(ranks)
            dist.all_reduce(tensor)


def largest(value: int, device: torch.device) -> int:
    """The largest of all ranks' values."""
    if world_size() == 1:
        return value
    shared = torch.tensor(value, device=device)
    dist.all_reduce(shared, op=dist.ReduceOp.MAX)
    return int(shared)


def _shaped(bucket: dist.GradBucket, own: Tensor, other: Tensor) -> list[Tensor]:
    """Views of `other`, which is laid out as `own`, the buffer of the bucket, in the shapes of the gradients."""
    offset = own.storage_offset() - other.storage_offset()
    return [other.as_strided(g.size(), g.stride(), g.storage_offset() - offset) for g in bucket.gradients()]


def _put(
    bucket: dist.GradBucket, gradients: list[Tensor], buffers: dict[Tensor, Tensor], loss_scale: Tensor | None
) -> None:
    """Copy the gradients of a bucket to `buffers` (weight -> buffer, made where missing), without their loss scale."""
    for weight in bucket.parameters():
        if weight not in buffers:
            buffers[weight] = torch.empty_like(weight)
    kept = [buffers[weight] for weight in bucket.parameters()]
    torch._foreach_copy_(kept, gradients)
    if loss_scale is not None:
        torch._foreach_div_(kept, loss_scale.to(kept[0].device))


def share_scalars(values: list[Tensor], device: torch.device) -> Tensor:
    """The sum over all ranks of each of `values` (scalars), as one small collective."""
    packed = torch.stack([value.to(device, torch.float32) for value in values])
    dist.all_reduce(packed)
    return packed


def broadcast_statistics(modules: list[nn.Module], source: int) -> None:
    """Give every rank the running statistics that rank `source` has, one collective for each dtype."""
    by_dtype: dict[torch.dtype, list[Tensor]] = {}
    for module in modules:
        for buffer in module.buffers(recurse=False):
            by_dtype.setdefault(buffer.dtype, []).append(buffer)
    for buffers in by_dtype.values():
        flat = torch.cat([buffer.reshape(-1) for buffer in buffers])
        dist.broadcast(flat, src=source)
        parts = flat.split([buffer.numel() for buffer in buffers])
        torch._foreach_copy_(buffers, [part.view_as(buffer) for part, buffer in zip(parts, buffers, strict=True)])
