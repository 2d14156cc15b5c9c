"""Sliced Wasserstein distance."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .pairs import pair

__all__ = ["swd"]


def swd(a: Tensor, b: Tensor, *, projections: int = 128, seed: int = 0) -> Tensor:
    """Sliced 2-Wasserstein distance: the root of the mean over directions of W2^2 of the projected sets.

    On a line W2^2 is the integral over u in (0, 1) of the squared difference of the two quantile functions.
    Both are steps, so it is computed exactly, also for different numbers of samples. It is biased: two finite
    sets of one distribution give more than 0.

    Args:
        a: samples [T, A, *sample].
        b: samples [T, B, *sample].
        projections: the number of directions, uniform on the sphere; the same for every task and call.
        seed: of the directions.

    Returns:
        float64 [T].

    Raises:
        ValueError: shapes that do not fit together, or no projections.
    """
    x, y = pair("swd", a, b)
    if projections < 1:
        raise ValueError(f"[swd] expected projections >= 1, got {projections}")
    directions = torch.from_numpy(np.random.default_rng(seed).standard_normal((x.shape[2], projections)))
    directions = (directions / directions.norm(dim=0)).to(x.device)
    left, right, weight = (value.to(x.device) for value in _steps(x.shape[1], y.shape[1]))
    x, y = (x @ directions).sort(1).values, (y @ directions).sort(1).values
    squares = (x[:, left] - y[:, right]).square()
    return torch.einsum("k,tkp->tp", weight, squares).mean(1).sqrt()


def _steps(n: int, m: int) -> tuple[Tensor, Tensor, Tensor]:
    """The pieces of (0, 1) on which both quantile functions are constant: indices into both sets, lengths.

    In whole numbers: the breakpoints are multiples of 1 / (n m).
    """
    ends = np.union1d(np.arange(1, n + 1) * m, np.arange(1, m + 1) * n)
    starts = np.concatenate(([0], ends[:-1]))
    return (
        torch.from_numpy(starts // m),
        torch.from_numpy(starts // n),
        torch.from_numpy((ends - starts) / (n * m)),
    )
