"""An exact count of the bytes of tensor storage that are alive, now and at their peak."""

import threading
import weakref

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class LiveBytes:
    """Counts every storage that an operator returns inside the context, once, until it is freed.

    Not the resident memory of the process, which depends on the allocator and on the past. All of a backward pass on a
    CPU runs in the thread that called it and is seen, as are threads started inside the context. Storages that exist
    before the context are not counted, nor is scratch space inside a kernel.

    Attributes:
        live (`int`): Bytes alive now.
        peak (`int`): Most bytes alive at once since `reset_peak`.
    """

    def __init__(self):
        self.live = self.peak = 0
        self._sizes: dict[int, int] = {}
        # Reentrant: the garbage collector may free a storage while another is being counted.
        self._lock = threading.RLock()

    def __enter__(self):
        self._mode = _SeeResults(self)
        self._mode.__enter__()
        # A dispatch mode is seen by the thread that entered it only.
        self._run_thread = threading.Thread.run

        def run(thread: threading.Thread):
            with _SeeResults(self):
                self._run_thread(thread)

        threading.Thread.run = run
        return self

    def __exit__(self, *error):
        threading.Thread.run = self._run_thread
        self._mode.__exit__(*error)

    def reset_peak(self):
        with self._lock:
            self.peak = self.live

    def see(self, storage: torch.UntypedStorage):
        key, size = storage._cdata, storage.nbytes()
        with self._lock:
            if key in self._sizes:
                self.live += size - self._sizes[key]
            else:
                self.live += size
                weakref.finalize(storage, self._forget, key)
            self._sizes[key] = size
            self.peak = max(self.peak, self.live)

    def _forget(self, key: int):
        with self._lock:
            self.live -= self._sizes.pop(key)


class _SeeResults(TorchDispatchMode):
    def __init__(self, counter: LiveBytes):
        super().__init__()
        self.counter = counter

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        # resize_ and set_ give an argument other storage.
        for tensor in tree_iter((result, args, kwargs) if func._schema.is_mutable else result):
            if isinstance(tensor, torch.Tensor) and tensor.device.type != "meta":
                self.counter.see(tensor.untyped_storage())
        return result
