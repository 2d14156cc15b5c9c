"""Reuse of large buffers between calls: a fresh one costs a page fault every 4 KiB, which can take longer than the arithmetic."""

from __future__ import annotations

import threading

import torch
from torch import Tensor

__all__ = ["BufferPool"]


class BufferPool:
    """Hands out uninitialised one-dimensional tensors and takes them back. Threads may share it.

    Args:
        dtype: of the buffers.
        keep: how many buffers are kept at most; the smallest are let go first.
    """

    def __init__(self, dtype: torch.dtype, keep: int = 4) -> None:
        self._dtype, self._keep = dtype, keep
        self._free: list[Tensor] = []
        self._lock = threading.Lock()

    def take(self, elements: int) -> Tensor:
        """A buffer of at least `elements` elements, 64-byte aligned."""
        with self._lock:
            fitting = [i for i, buffer in enumerate(self._free) if len(buffer) >= elements]
            if fitting:
                return self._free.pop(min(fitting, key=lambda i: len(self._free[i])))
        return torch.empty(max(elements, 1), dtype=self._dtype)

    def give(self, buffer: Tensor) -> None:
        """Takes a buffer back; the caller must not touch it again."""
        with self._lock:
            self._free.append(buffer)
            self._free.sort(key=len)
            del self._free[: -self._keep]
