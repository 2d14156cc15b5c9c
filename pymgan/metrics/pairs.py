"""What metrics of two sample sets share.

Checked float64 rows, squared distances, means without the diagonal.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["distances", "mean_off_diagonal", "pair", "squared_distances"]


def pair(name: str, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Both sets as float64 rows, [T, A, D] and [T, B, D].

    Raises:
        TypeError: something else than tensors of real numbers.
        ValueError: no task or sample axis, nothing in it, other numbers of tasks or other sample shapes.
    """
    for value in (a, b):
        if not isinstance(value, Tensor) or value.dtype.is_complex:
            got = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise TypeError(f"[{name}] expected tensors of real numbers, got {got}")
    if a.ndim < 3 or 0 in a.shape or b.ndim < 3 or 0 in b.shape:
        raise ValueError(
            f"[{name}] expected [T, A, *sample] and [T, B, *sample], got {list(a.shape)} and {list(b.shape)}"
        )
    if a.shape[0] != b.shape[0] or a.shape[2:] != b.shape[2:]:
        raise ValueError(
            f"[{name}] expected equal tasks and sample shapes, got {list(a.shape)} and {list(b.shape)}"
        )
    return a.detach().flatten(2).double(), b.detach().to(a.device).flatten(2).double()


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """|x_i - y_j|^2, [T, A, B], of rows [T, A, D] and [T, B, D].

    From differences, so that equal rows give exactly 0.
    """
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").square()


def distances(x: Tensor, y: Tensor, epsilon: float = 0.0) -> Tensor:
    """sqrt(|x_i - y_j|^2 + epsilon), [T, A, B]."""
    return (squared_distances(x, y) + epsilon).sqrt()


def mean_off_diagonal(values: Tensor, *, alone: float = 0.0) -> Tensor:
    """The mean of values [T, N, N] over i != j, [T]; `alone` where N is 1."""
    count = values.shape[1]
    if count < 2:
        return torch.full_like(values[:, 0, 0], alone)
    total = values.sum((1, 2)) - values.diagonal(dim1=1, dim2=2).sum(1)
    return total / (count * (count - 1))
