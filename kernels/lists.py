"""Lists of different lengths as tables that kernels can walk through."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Lists", "groups_of", "lists_of"]


@dataclass(frozen=True)
class Lists:
    """Lists of whole numbers, one after the other.

    Attributes:
        count, longest: how many there are, and the longest one's length.
        starts: int32 [count + 1]; items: int32; factors: float64, one an item, or None.
    """

    count: int
    longest: int
    starts: Tensor
    items: Tensor
    factors: Tensor | None = None


def lists_of(
    count: int, links: Sequence[tuple[int, int, float]], device: torch.device, *, factors: bool = True
) -> Lists:
    """Of links (list, item, factor), each list in the order of its items."""
    in_order = sorted(links)
    lengths = [0] * count
    for which, _, _ in in_order:
        lengths[which] += 1
    starts = torch.tensor([0, *lengths]).cumsum(0).to(device, torch.int32)
    items = torch.tensor([item for _, item, _ in in_order], dtype=torch.int32, device=device)
    values = None
    if factors:
        values = torch.tensor([factor for *_, factor in in_order], dtype=torch.float64, device=device)
    return Lists(count, max(lengths), starts, items, values)


def groups_of(of: Sequence[int], device: torch.device) -> Lists:
    """The elements of each group, given every element's group."""
    links = [(group, element, 1.0) for element, group in enumerate(of)]
    return lists_of(max(of) + 1, links, device, factors=False)
