"""Sums over tasks as ``Engine.pullback`` makes them with `weight`, for engines that pull all tasks at once."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["reduce_tasks"]


def reduce_tasks(
    valid: Tensor, weight: Tensor, v0: Tensor, state_v0: Tensor | None, d_scale: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """Adds what the tasks pulled, in their order; tasks that are not valid or not finite are left out.

    Args:
        valid: bool [T], from `adapt`.
        weight: [T].
        v0, state_v0, d_scale: [C, T, P]; None stays None.

    Returns:
        (the tasks that are in the sums, bool [T]; the sums [C, P]).
    """
    valid = valid & torch.isfinite(v0).all(dim=2).all(dim=0)
    weight = weight.to(v0)

    def total(value: Tensor) -> Tensor:
        out = torch.zeros_like(value[:, 0])
        for t in torch.nonzero(valid).flatten().tolist():
            out += weight[t] * value[:, t]
        return out

    state, scale = (None if value is None else total(value) for value in (state_v0, d_scale))
    return valid, total(v0), state, scale
