"""How well samples cover the modes of a known mixture."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .pairs import distances, pair

__all__ = ["ModeScore", "modes"]


class ModeScore(NamedTuple):
    """Of T tasks.

    Attributes:
        covered: float64 [T], modes with at least one sample near them.
        quality: float64 [T], the fraction of samples that are near a mode.
    """

    covered: Tensor
    quality: Tensor


def modes(samples: Tensor, centres: Tensor, deviation: Tensor, *, within: float = 3.0) -> ModeScore:
    """Modes covered, and the fraction of samples near one: at most `within` deviations from it.

    Args:
        samples: [T, B, D].
        centres: [T, M, D].
        deviation: [T], of a mode in each coordinate.
        within: in deviations.

    Raises:
        ValueError: shapes that do not fit together.
    """
    x, y = pair("modes", samples, centres)
    if tuple(deviation.shape) != (x.shape[0],):
        raise ValueError(f"[modes] expected deviation [{x.shape[0]}], got {list(deviation.shape)}")
    nearest, index = distances(x, y).min(2)
    near = nearest <= within * deviation.to(x.device).double()[:, None]
    hits = torch.zeros(y.shape[:2], dtype=torch.float64, device=x.device)
    hits.scatter_add_(1, index, near.double())
    return ModeScore(covered=(hits > 0).sum(1).double(), quality=near.double().mean(1))
