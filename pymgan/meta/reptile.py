"""Reptile: move the meta-parameters towards the adapted ones. No derivative through the inner steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from .base import Direction, Meta, fine_tune, mean_of, scalar_mean

if TYPE_CHECKING:
    from ..contract import Engine
    from ..tasks import TaskBatch

__all__ = ["Reptile"]


@dataclass(frozen=True, kw_only=True)
class Reptile(Meta):
    """Reptile (Nichol et al., 2018) for both players: the outer Adam descends the mean of phi - phi_K over
    the tasks.

    Adam has no first moment here: with the defaults of the other methods it diverges.

    Query sets are not used: they are further samples that other methods see, so its support sets are drawn
    again at every step.
    """

    outer_lr: float | tuple[float, float] = 1e-3
    betas: tuple[float, float] = (0.0, 0.99)

    name: ClassVar[str] = "reptile"

    def direction(
        self, engine: Engine, phi: Tensor, rates: Tensor, batch: TaskBatch, *, seed: int, step: int
    ) -> Direction:
        adapted = fine_tune(engine, phi, rates, batch, seed=seed, steps=self.inner_steps)
        difference = phi.to(engine.device, engine.dtype) - adapted.phi
        trace = adapted.trace
        valid = trace.valid & torch.isfinite(difference.sum(1))
        metrics = {
            "objective": scalar_mean(difference.square().sum(1).sqrt(), valid),
            "loss_g": scalar_mean(trace.loss_g[:, -1], valid),
            "loss_d": scalar_mean(trace.loss_d[:, -1], valid),
        }
        return Direction(gradient=mean_of(difference, valid), valid=valid, metrics=metrics)
