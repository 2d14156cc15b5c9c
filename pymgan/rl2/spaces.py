"""Observations and actions of any gymnasium space as rows of numbers that a network reads and writes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

__all__ = ["Leaf", "encode", "leaves", "symlog", "width"]

Leaf = spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary


def leaves(space: spaces.Space[Any]) -> list[Leaf]:
    """The spaces without parts that a space is made of, in order.

    Raises:
        NotImplementedError: a part is not a Box, Discrete, MultiDiscrete, MultiBinary, Dict or Tuple.
    """
    if isinstance(space, spaces.Dict):
        return [leaf for part in space.spaces.values() for leaf in leaves(part)]
    if isinstance(space, spaces.Tuple):
        return [leaf for part in space.spaces for leaf in leaves(part)]
    if isinstance(space, (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)):
        return [space]
    raise NotImplementedError(
        f"[rl2] expected a space of Box, Discrete, MultiDiscrete, MultiBinary, Dict and Tuple, got {space!r}"
    )


def width(space: spaces.Space[Any]) -> int:
    """Columns that `encode` makes of one value."""
    return sum(_leaf_width(leaf) for leaf in leaves(space))


def encode(space: spaces.Space[Any], values: Any) -> Tensor:
    """A batch of N values of the space, as a vector environment returns them, as float32 [N, width(space)].

    What is one of several becomes one-hot, numbers of a Box go through `symlog`.
    """
    return torch.cat([_encode_leaf(leaf, value) for leaf, value in _parts(space, values)], 1)


def symlog(x: Tensor) -> Tensor:
    """sign(x) log(1 + |x|): keeps small numbers and tames large ones (Hafner et al. 2023, arXiv 2301.04104)."""
    return x.sign() * x.abs().log1p()


def _parts(space: spaces.Space[Any], values: Any) -> Iterator[tuple[Leaf, Any]]:
    if isinstance(space, spaces.Dict):
        for name, part in space.spaces.items():
            yield from _parts(part, values[name])
    elif isinstance(space, spaces.Tuple):
        for index, part in enumerate(space.spaces):
            yield from _parts(part, values[index])
    else:
        yield from ((leaf, values) for leaf in leaves(space))


def _leaf_width(leaf: Leaf) -> int:
    if isinstance(leaf, spaces.Discrete):
        return int(leaf.n)
    if isinstance(leaf, spaces.MultiDiscrete):
        return int(leaf.nvec.sum())
    return int(np.prod(leaf.shape))


def _encode_leaf(leaf: Leaf, values: Any) -> Tensor:
    if isinstance(leaf, spaces.Discrete):
        return _one_hot(torch.as_tensor(np.asarray(values, np.int64) - int(leaf.start)), int(leaf.n))
    if isinstance(leaf, spaces.MultiDiscrete):
        chosen = np.asarray(values, np.int64) - leaf.start
        columns = torch.as_tensor(chosen.reshape(len(chosen), -1))
        sizes = leaf.nvec.reshape(-1).tolist()
        return torch.cat([_one_hot(columns[:, i], int(size)) for i, size in enumerate(sizes)], 1)
    rows = torch.as_tensor(np.asarray(values, np.float32))
    rows = rows.reshape(len(rows), -1)
    return rows if isinstance(leaf, spaces.MultiBinary) else symlog(rows)


def _one_hot(index: Tensor, size: int) -> Tensor:
    return torch.nn.functional.one_hot(index, size).float()
