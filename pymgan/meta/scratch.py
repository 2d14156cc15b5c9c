"""No meta-learning: the same inner steps from the fresh initialisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from .base import Direction, Meta

if TYPE_CHECKING:
    from ..contract import Engine
    from ..tasks import TaskBatch

__all__ = ["Scratch"]


@dataclass(frozen=True, kw_only=True)
class Scratch(Meta):
    """A GAN trained on the support set alone, from the initial weights that the other methods started from.

    Its budget is that of the others at test time, exactly: `inner_steps` steps, at the rate that suits
    it best on the validation classes. It says what adaptation without prior training can do in so few steps,
    not what a GAN trained for longer on eight images could.
    """

    name: ClassVar[str] = "scratch"
    trains: ClassVar[bool] = False

    def direction(
        self, engine: Engine, phi: Tensor, rates: Tensor, batch: TaskBatch, *, seed: int, step: int
    ) -> Direction:
        raise TypeError("Scratch has no meta-step: it is adapted from the initial weights")
