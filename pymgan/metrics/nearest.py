"""How close samples are to the support: whether a generator copies it."""

from __future__ import annotations

import math

from torch import Tensor

from .pairs import distances, pair

__all__ = ["nearest_support"]


def nearest_support(samples: Tensor, support: Tensor) -> Tensor:
    """Mean distance from a sample to its nearest support sample: root mean square difference per coordinate.

    The same of real queries, `nearest_support(batch.query, batch.support)`, is the number to compare with:
    far below it a generator repeats its support, far above it the generator draws something else.

    Args:
        samples: [T, A, *sample].
        support: [T, S, *sample].

    Returns:
        float64 [T].

    Raises:
        ValueError: shapes that do not fit together.
    """
    x, y = pair("nearest_support", samples, support)
    return distances(x, y).amin(2).mean(1) / math.sqrt(x.shape[2])
