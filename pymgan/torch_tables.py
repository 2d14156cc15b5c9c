"""What the torch engine's interpreter looks things up in, and its noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pymgan.frame import Compiled
from pymgan.noise import normals

__all__ = ["Tables", "normals_of"]


class Tables:
    """A program's tables as tensors, once for all runs."""

    def __init__(self, compiled: Compiled) -> None:
        self.device = compiled.device
        # Every element's own number, where a tensor has one for each.
        self.of = [self._index(t.of) for t in compiled.tensors]
        self.groups = [self._index(of) for of in compiled.groups]
        self.places = [self._places(t) for t in compiled.tensors]
        self.maps = [self._matrix(i, o, links) for i, o, links in compiled.maps]
        # What each site of a window's output, and of its input, sees through each tap; outside is one site more.
        self.seen = [
            tuple(
                self._index(w.from_).view(w.out_sites, w.taps) % (w.in_sites + 1)
                for w in (both.forward, both.back)
            )
            for both in compiled.windows
        ]

    def _index(self, numbers: Sequence[int]) -> Tensor:
        return torch.tensor(numbers, dtype=torch.int64, device=self.device)

    def _places(self, t: Any) -> Tensor:
        """[n, taps, k], where a windowed weight's elements lie in phi."""
        n, k = self._index(range(t.n))[:, None, None] * t.weight_n, self._index(range(t.k)) * t.weight_k
        places: Tensor = t.weight + n + self._index(t.weight_tap)[:, None] + k
        return places

    def _matrix(self, size_in: int, size_out: int, links: list[tuple[int, int, float]]) -> Tensor:
        """[out, in], and float64: a mean by a matrix of 1 / n would round every term."""
        to, source, factor = zip(*links, strict=True)
        matrix = torch.zeros(size_out, size_in, dtype=torch.float64, device=self.device)
        factors = torch.tensor(factor, dtype=torch.float64, device=self.device)
        return matrix.index_put_((self._index(to), self._index(source)), factors, accumulate=True)


def normals_of(key: Tensor, stream: int, rows: int, columns: int) -> Tensor:
    """Standard normals [T, rows, columns] of a frame's key and a stream, float64, drawn on the host."""
    drawn = [normals(seed % 2**64, task, step, stream, rows * columns) for seed, task, step in key.tolist()]
    return torch.stack([torch.from_numpy(z).view(rows, columns) for z in drawn]).to(key.device)
