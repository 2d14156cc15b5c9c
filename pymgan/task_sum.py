"""Sums over tasks as ``Engine.pullback`` makes them with `weight`, for engines that pull all tasks at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["in_order", "reduce_tasks"]


def in_order(value: Tensor, weight: Tensor, counts: Tensor) -> Tensor:
    """[C, P]: the sum over the tasks that count (bool [T]) of each one's weight [T] times its value [C, T, P], in their order."""
    out = torch.zeros_like(value[:, 0])
    for t in torch.nonzero(counts).flatten().tolist():
        out += weight[t] * value[:, t]
    return out


def reduce_tasks(
    valid: Tensor,
    weight: Tensor,
    v0: Tensor,
    state_v0: Tensor | None,
    d_scale: Tensor | None,
    total: Callable[[Tensor, Tensor, Tensor], Tensor] = in_order,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """Adds what the tasks pulled, in their order; tasks that are not valid or not finite are left out.

    Args:
        valid: bool [T], from `adapt`.
        weight: [T].
        v0, state_v0, d_scale: [C, T, P]; None stays None.
        total: adds one of them up, as `in_order` does.

    Returns:
        (the tasks that are in the sums, bool [T]; the sums [C, P]).
    """
    valid = valid & torch.isfinite(v0).all(dim=2).all(dim=0)
    weight = weight.to(v0)
    state, scale = (None if value is None else total(value, weight, valid) for value in (state_v0, d_scale))
    return valid, total(v0, weight, valid), state, scale
