"""Reuse of large buffers between calls: a fresh one costs a page fault every 4 KiB, which can take longer than the arithmetic."""

from __future__ import annotations

import math
import mmap
import threading
import weakref

import numpy as np
import torch
from torch import Tensor

__all__ = ["BufferPool"]

LARGE = 1 << 18  # bytes: below, the heap reuses memory by itself


class BufferPool:
    """Hands out uninitialised memory and takes it back. Threads may share it.

    Args:
        dtype: of the buffers.
        keep: how many free buffers are kept at most; the one that lay unused for the longest goes first.
    """

    def __init__(self, dtype: torch.dtype, keep: int = 32) -> None:
        self._dtype, self._keep = dtype, keep
        self._free: list[Tensor] = []  # bytes; the last one given comes last
        self._lock = threading.Lock()

    def take(self, elements: int) -> Tensor:
        """A one-dimensional buffer of `elements`, 64-byte aligned, until it is given back."""
        return self._take(elements * self._dtype.itemsize).view(self._dtype)[:elements]

    def give(self, buffer: Tensor) -> None:
        """Takes back what `take` handed out; the caller must not touch it again."""
        whole = torch.empty(0, dtype=torch.uint8).set_(buffer.untyped_storage())
        with self._lock:
            self._free.append(whole)
            del self._free[: -self._keep]

    def result(self, *shape: int) -> Tensor:
        """A tensor for the caller's caller: its memory comes back by itself when the last view of it is gone."""
        elements = math.prod(shape)
        if elements * self._dtype.itemsize < LARGE:
            return torch.empty(*shape, dtype=self._dtype)
        buffer = self.take(elements)
        lease: np.ndarray = buffer.numpy()[:]  # the tensor made of it holds it, and nothing else does
        weakref.finalize(lease, self.give, buffer).atexit = False
        return torch.from_numpy(lease).view(shape)

    def _take(self, size: int) -> Tensor:
        """At least `size` bytes, and no more than twice as many: a large buffer is not spent on a small use."""
        with self._lock:
            fitting = [i for i, free in enumerate(self._free) if size <= len(free) <= max(2 * size, LARGE)]
            if fitting:
                return self._free.pop(min(fitting, key=lambda i: len(self._free[i])))
        return _allocate(max(size, 64))


def _allocate(size: int) -> Tensor:
    if size < LARGE:
        return torch.empty(size, dtype=torch.uint8)
    pages = mmap.mmap(-1, size)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        pages.madvise(mmap.MADV_HUGEPAGE)  # 2 MiB at a time: fewer faults, fewer entries of the TLB
    return torch.frombuffer(pages, dtype=torch.uint8)
