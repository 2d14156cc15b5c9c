"""Squared maximum mean discrepancy with Gaussian kernels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .pairs import mean_off_diagonal, pair, squared_distances

__all__ = ["BANDWIDTHS", "mmd2"]

# Of the root mean square difference per coordinate: images in [-1, 1] of one class differ by about 0.5.
BANDWIDTHS = (0.125, 0.25, 0.5, 1.0)


def mmd2(a: Tensor, b: Tensor, *, bandwidths: Sequence[float] = BANDWIDTHS) -> Tensor:
    """Unbiased estimate of E k(x, x') + E k(y, y') - 2 E k(x, y).

    k is the mean over h of exp(-|x - y|^2 / (2 h^2 D)). D is the number of coordinates, so that a bandwidth h
    means the same for samples of any size. Pairs of a sample with itself are left out: equal distributions
    give 0 on average and single values may be negative.

    Args:
        a: samples [T, A, *sample].
        b: samples [T, B, *sample].
        bandwidths: h > 0, one kernel each.

    Returns:
        float64 [T]. A set of one sample counts as a distribution that is one point.

    Raises:
        ValueError: shapes that do not fit together, or a bandwidth that is not positive.
    """
    x, y = pair("mmd2", a, b)
    if not bandwidths or min(bandwidths) <= 0:
        raise ValueError(f"[mmd2] expected bandwidths > 0, got {tuple(bandwidths)}")
    within = mean_off_diagonal(_kernel(x, x, bandwidths), alone=1) + mean_off_diagonal(
        _kernel(y, y, bandwidths), alone=1
    )
    return within - 2 * _kernel(x, y, bandwidths).mean((1, 2))


def _kernel(x: Tensor, y: Tensor, bandwidths: Sequence[float]) -> Tensor:
    square = squared_distances(x, y) / x.shape[2]
    return torch.stack([torch.exp(square / (-2 * h * h)) for h in bandwidths]).mean(0)
