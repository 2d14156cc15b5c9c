"""Reuse of large buffers between calls: a fresh one costs a page fault every 4 KiB, which can take longer than the arithmetic."""

from __future__ import annotations

import math
import mmap
import threading
import weakref
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

__all__ = ["BufferPool", "Buffers", "DeviceBuffers"]

LARGE = 1 << 18  # bytes: below, the heap reuses memory by itself


class Buffers(Protocol):
    """Where an engine's memory comes from: uninitialised, of its dtype."""

    def take(self, elements: int) -> Tensor:
        """A one-dimensional buffer of at least `elements`, 64-byte aligned, until it is given back."""

    def give(self, buffer: Tensor) -> None:
        """Takes back what `take` handed out; the caller must not touch it again."""

    def result(self, *shape: int) -> Tensor:
        """A tensor for the caller's caller."""


class DeviceBuffers:
    """torch's own allocator of a device, which keeps what is freed, for the stream that used it."""

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        self._dtype, self._device = dtype, device

    def take(self, elements: int) -> Tensor:
        """See `Buffers`."""
        return torch.empty(max(elements, 1), dtype=self._dtype, device=self._device)

    def give(self, buffer: Tensor) -> None:
        """See `Buffers`."""

    def result(self, *shape: int) -> Tensor:
        """See `Buffers`."""
        return torch.empty(*shape, dtype=self._dtype, device=self._device)


class BufferPool:
    """Hands out uninitialised memory and takes it back. Threads may share it.

    Args:
        dtype: of the buffers.
        keep: how many free buffers are kept at most; the one that lay unused for the longest goes first.
    """

    def __init__(self, dtype: torch.dtype, keep: int = 32) -> None:
        self._dtype, self._keep = dtype, keep
        self._free: list[Tensor] = []  # the last one given comes last
        self._lock = threading.Lock()

    def take(self, elements: int) -> Tensor:
        """A one-dimensional buffer of at least `elements`, 64-byte aligned, until it is given back.

        It has no more than twice as many where it is large: a large one is not spent on a small use.
        """
        most = max(2 * elements, LARGE // self._dtype.itemsize)
        with self._lock:
            fitting = [i for i, free in enumerate(self._free) if elements <= len(free) <= most]
            if fitting:
                return self._free.pop(min(fitting, key=lambda i: len(self._free[i])))
        return _allocate(max(elements, 1), self._dtype)

    def give(self, buffer: Tensor) -> None:
        """Takes back what `take` handed out; the caller must not touch it again."""
        with self._lock:
            self._free.append(buffer)
            del self._free[: -self._keep]

    def result(self, *shape: int) -> Tensor:
        """A tensor for the caller's caller: its memory comes back by itself when the last view of it is gone."""
        elements = math.prod(shape)
        if elements * self._dtype.itemsize < LARGE:
            return torch.empty(*shape, dtype=self._dtype)
        buffer = self.take(elements)
        lease: np.ndarray = buffer.numpy()[:elements]  # the tensor made of it holds it, and nothing else does
        weakref.finalize(lease, self.give, buffer).atexit = False
        return torch.from_numpy(lease).view(shape)


def _allocate(elements: int, dtype: torch.dtype) -> Tensor:
    size = elements * dtype.itemsize
    if size < LARGE:
        return torch.empty(elements, dtype=dtype)
    pages = mmap.mmap(-1, size)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        pages.madvise(mmap.MADV_HUGEPAGE)  # 2 MiB at a time: fewer faults, fewer entries of the TLB
    return torch.frombuffer(pages, dtype=dtype)
