"""Energy distance between two sets of samples."""

from __future__ import annotations

from torch import Tensor

from .pairs import distances, mean_off_diagonal, pair

__all__ = ["energy"]


def energy(a: Tensor, b: Tensor, *, epsilon: float = 1e-12) -> Tensor:
    """Unbiased estimate of 2 E|x - y| - E|x - x'| - E|y - y'|, with |x| = sqrt(sum x^2 + epsilon).

    Pairs of a sample with itself are left out, so that equal distributions give 0 on average and single
    values may be negative. The same as an engine's `distance("energy", a, b)`, in float64.

    Args:
        a: samples [T, A, *sample].
        b: samples [T, B, *sample].
        epsilon: inside the root.

    Returns:
        float64 [T]. A set of one sample counts as a distribution that is one point.

    Raises:
        ValueError: shapes that do not fit together.
    """
    x, y = pair("energy", a, b)
    across = distances(x, y, epsilon).mean((1, 2))
    return (
        2 * across - mean_off_diagonal(distances(x, x, epsilon)) - mean_off_diagonal(distances(y, y, epsilon))
    )
