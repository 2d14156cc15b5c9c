"""Rings: mixtures of eight Gaussians on a circle, with random rotation, scale and centre."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..metrics import ModeScore, modes
from .base import SPLITS, TaskBatch, TaskDistribution, check_draw, digest, draw_ids

__all__ = ["Mixture", "Rings", "rings"]

MODES = 8
RADIUS = (0.3, 0.55)
CENTRE = 0.25  # each coordinate of the centre is within +- this
WIDTH = 0.08  # deviation of a mode, of the radius: neighbours are 9.6 deviations apart
_VERSION = "rings/1"


@dataclass(frozen=True)
class Mixture:
    """The T mixtures behind a batch of tasks.

    Attributes:
        centres: float32 [T, 8, 2].
        deviation: float32 [T], of each mode in each coordinate.
    """

    centres: Tensor
    deviation: Tensor


class Rings(TaskDistribution):
    """See `rings`. A task is a function of its id, so that `mixture` finds the truth behind any batch."""

    classes: tuple[str, ...] = ()

    def __init__(self, split: str | None = None) -> None:
        self.name = "rings"
        self.sample_shape = (2,)
        self._split = split

    @property
    def fingerprint(self) -> str:
        """A hash of the rules: there is no data."""
        return digest(_VERSION, self._split or "", repr((MODES, RADIUS, CENTRE, WIDTH)))

    def sample(self, n_tasks: int, shots: int, queries: int, rng: np.random.Generator) -> TaskBatch:
        """See `TaskDistribution.sample`. Classes are named after the last digits of the task's id."""
        check_draw(n_tasks, shots, queries, rng)
        ids = self._ids(n_tasks, rng)
        mixture = self.mixture(ids)
        count = shots + queries
        mode = torch.from_numpy(rng.integers(MODES, size=(n_tasks, count)))
        offset = torch.from_numpy(rng.standard_normal((n_tasks, count, 2), dtype=np.float32))
        # At most 4 deviations from a mode, or one sample in thousands would leave the range of a generator
        # that ends in tanh.
        offset *= (4 / offset.norm(dim=-1, keepdim=True).clamp_min(1e-6)).clamp_max(1)
        centre = torch.gather(mixture.centres, 1, mode.unsqueeze(-1).expand(-1, -1, 2))
        points = centre + mixture.deviation[:, None, None] * offset
        names = [f"ring {number % 100_000:05d}" for number in ids.tolist()]
        return TaskBatch(points[:, :shots].contiguous(), points[:, shots:].contiguous(), ids, names)

    def split(self, name: str) -> Rings:
        """See `TaskDistribution.split`.

        The parts have no parameters in common: each derives its tasks from its own numbers.
        """
        if self._split is not None:
            raise ValueError(f"expected the whole distribution to split, got its {self._split} split")
        if name not in SPLITS:
            raise ValueError(f"expected a split of {', '.join(SPLITS)}, got {name!r}")
        return Rings(name)

    def mixture(self, ids: Tensor) -> Mixture:
        """The mixtures of tasks, from their ids int64 [T]."""
        drawn = np.stack(
            [np.random.default_rng([ord("r"), int(number)]).random(4) for number in ids.tolist()]
        )
        radius = RADIUS[0] + (RADIUS[1] - RADIUS[0]) * drawn[:, 0]
        turn = drawn[:, 1] * 2 * math.pi / MODES
        centre = CENTRE * (2 * drawn[:, 2:] - 1)
        angle = turn[:, None] + np.arange(MODES) * 2 * math.pi / MODES
        circle = np.stack((np.cos(angle), np.sin(angle)), axis=-1)
        centres = centre[:, None] + radius[:, None, None] * circle
        return Mixture(
            torch.from_numpy(centres.astype(np.float32)),
            torch.from_numpy((WIDTH * radius).astype(np.float32)),
        )

    def modes(self, samples: Tensor, ids: Tensor) -> ModeScore:
        """Modes covered by samples [T, B, 2] of the tasks with these ids, and the fraction near a mode."""
        mixture = self.mixture(ids)
        return modes(samples, mixture.centres, mixture.deviation)

    def _ids(self, n_tasks: int, rng: np.random.Generator) -> Tensor:
        """Ids whose remainder modulo 3 is their split: two splits can never draw the same task."""
        numbers = draw_ids(n_tasks, rng, below=2**60)
        if self._split is None:
            return 3 * numbers + torch.from_numpy(rng.integers(3, size=n_tasks))
        return 3 * numbers + SPLITS.index(self._split)


def rings() -> Rings:
    """Endless tasks in the plane.

    Eight equal Gaussians on a circle of random rotation, radius and centre, within [-1, 1].
    """
    return Rings()
