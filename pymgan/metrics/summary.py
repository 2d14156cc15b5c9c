"""Means with intervals over tasks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypedDict

import torch
from torch import Tensor

__all__ = ["Summary", "summarise"]

_Z = 1.959963984540054  # the normal's 97.5 % quantile


class Summary(TypedDict):
    """A mean and the half-width of its 95 % interval."""

    mean: float
    ci95: float


def summarise(values: Tensor | Sequence[float]) -> Summary:
    """Mean over tasks [T] and the half-width of its 95 % interval by Student's t.

    Returns:
        `{"mean": x, "ci95": half-width}`; the half-width for a single task is NaN.

    Raises:
        ValueError: not a list of at least one number.
    """
    numbers = torch.as_tensor(values, dtype=torch.float64)
    if numbers.ndim != 1 or not len(numbers):
        raise ValueError(f"expected values [T], T >= 1, got {list(numbers.shape)}")
    count = len(numbers)
    if count < 2:
        return {"mean": float(numbers.mean()), "ci95": math.nan}
    half = student_quantile(count - 1) * float(numbers.std(unbiased=True)) / math.sqrt(count)
    return {"mean": float(numbers.mean()), "ci95": half}


def student_quantile(freedom: int) -> float:
    """The 97.5 % quantile of Student's t.

    Exact for 1 and 2 degrees of freedom, else Fisher's expansion (0.2 % off at 3, less above).
    """
    if freedom == 1:
        return math.tan(math.pi * 0.475)
    if freedom == 2:
        return 0.95 * math.sqrt(2 / (1 - 0.95**2))
    z, n = _Z, freedom
    return (
        z
        + (z**3 + z) / (4 * n)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * n**3)
        + (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * n**4)
    )
