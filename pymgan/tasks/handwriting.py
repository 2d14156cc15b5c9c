"""Handwritten digits: scikit-learn's own, 8x8, no download."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from .pooled import Pooled

__all__ = ["digits"]

_TRAIN, _VALIDATION, _TEST = tuple(range(8)), (8,), (9,)


def digits(size: int = 8) -> Pooled:
    """1,797 handwritten digits: 0 to 7 train, 8 validates, 9 tests and is never seen in training.

    Args:
        size: 8, as they are; or more, interpolated.

    Returns:
        Samples [1, size, size] in [-1, 1], ink bright.

    Raises:
        ValueError: a size below 8.
    """
    from sklearn.datasets import load_digits  # scikit-learn takes a second to import

    if isinstance(size, bool) or not isinstance(size, int) or size < 8:
        raise ValueError(f"expected size to be a whole number >= 8, got {size!r}")
    data: Any = load_digits()
    images = torch.from_numpy(data.images).to(torch.float32).unsqueeze(1) / 8 - 1  # levels 0 to 16
    if size != 8:
        images = F.interpolate(images, size=(size, size), mode="bilinear", align_corners=False)
    labels = torch.from_numpy(data.target)
    parts = {"train": _TRAIN, "validation": _VALIDATION, "test": _TEST}
    names = [str(label) for label in range(10)]
    name = "digits" if size == 8 else f"digits{size}"
    return Pooled(name, [images[labels == label].contiguous() for label in range(10)], names, parts)
