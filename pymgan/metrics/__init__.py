"""Metrics of generated samples, batched over tasks: [T, B, *sample] in, float64 [T] out. One idea a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from .energy import energy
from .mixture import ModeScore, modes
from .mmd import mmd2
from .nearest import nearest_support
from .sliced import swd
from .summary import Summary, summarise

if TYPE_CHECKING:
    from ..tasks import TaskBatch

__all__ = [
    "ModeScore",
    "Summary",
    "all_metrics",
    "energy",
    "mmd2",
    "modes",
    "nearest_support",
    "summarise",
    "swd",
]


def all_metrics(samples: Tensor, batch: TaskBatch) -> dict[str, Tensor]:
    """Every metric of generated samples [T, B, *sample] for the tasks of a batch, each float64 [T].

    Energy, SWD and MMD are distances to the queries, which the generators have not seen; "nearest_support" is
    the distance to the support. `all_metrics(batch.query, batch)["nearest_support"]` is what real samples
    have for it.
    """
    return {
        "energy": energy(samples, batch.query),
        "swd": swd(samples, batch.query),
        "mmd2": mmd2(samples, batch.query),
        "nearest_support": nearest_support(samples, batch.support),
    }
