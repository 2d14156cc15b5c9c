"""Which sites of its input each site of a layer's output sees (csrc/window.h), as tables for kernels.

Output sites are put in an order in which those that see through the same taps are neighbours: the phases of a transposed
convolution, the borders of an image. A tile of a product then walks through the taps that one of its sites sees, and through no
others, so the zeros between the inputs of a transposed convolution are not multiplied.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .launch import cdiv

__all__ = ["FLAT", "WindowTables"]


class WindowTables:
    """Tables of one window, on one device.

    Attributes:
        in_sites, sites, taps: of the input, of the output, of the kernel.
        sees: int32 [sites, taps], the input's site; -1: outside.
        order: int32 [sites], output sites in the order of tiles.
        first_pair: int32 [taps + 1], pair_in, pair_out: int32, the pairs of sites that see each other through each tap.
    """

    def __init__(
        self, in_sites: int, sites: int, taps: int, sees: Sequence[int], device: torch.device
    ) -> None:
        self.in_sites, self.sites, self.taps, self.device = in_sites, sites, taps, device
        table = torch.tensor(sees, dtype=torch.int32).view(sites, taps)
        self._seen = [[tap for tap in range(taps) if row[tap] >= 0] for row in table.tolist()]
        in_order = sorted(range(sites), key=lambda site: self._seen[site])
        self._seen = [self._seen[site] for site in in_order]
        out, in_ = zip(*(_pairs(table[:, tap]) for tap in range(taps)), strict=True)
        first = torch.tensor([0, *(len(each) for each in out)]).cumsum(0)
        self.sees, self.order = table.to(device), self._table(in_order)
        self.first_pair, self.pair_out, self.pair_in = (
            each.to(device, torch.int32) for each in (first, torch.cat(out), torch.cat(in_))
        )
        self._walks: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}

    def walks(self, rows: int, tile: int) -> tuple[Tensor, Tensor]:
        """(taps of each tile int32 [tiles, taps], how many of them count int32 [tiles]) of tiles of that many (site, row)."""
        if (rows, tile) not in self._walks:
            tiles = []
            for first in range(0, self.sites * rows, tile):
                last = min(first + tile, self.sites * rows) - 1
                sites = range(first // rows, last // rows + 1)
                tiles.append(sorted({tap for site in sites for tap in self._seen[site]}))
            padded = [taps + [0] * (self.taps - len(taps)) for taps in tiles]
            self._walks[rows, tile] = self._table(padded), self._table([len(taps) for taps in tiles])
        return self._walks[rows, tile]

    def tiles(self, rows: int, tile: int) -> int:
        return cdiv(self.sites * rows, tile)

    def _table(self, numbers: Sequence[object]) -> Tensor:
        return torch.tensor(numbers, dtype=torch.int32, device=self.device)


def _pairs(seen: Tensor) -> tuple[Tensor, Tensor]:
    """(output sites, input sites) of one tap."""
    out = torch.nonzero(seen >= 0).flatten()
    return out, seen[out]


FLAT = (1, 1, 1, (0,))
"""The window of a Linear between flat samples, which have one site."""
