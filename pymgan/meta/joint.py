"""Joint training: one ordinary GAN on the samples of all tasks, fine-tuned at test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from ..contract import Data, Rng
from .base import Direction, Meta, mean_of, scalar_mean, whole

if TYPE_CHECKING:
    from ..contract import Engine
    from ..tasks import TaskBatch

__all__ = ["Joint"]


@dataclass(frozen=True, kw_only=True)
class Joint(Meta):
    """Pooled training: each step is one GAN step on a batch mixed over all tasks of the meta-batch, support
    and query alike.

    The inner loop (`inner_steps`, `inner_lr`) is its fine-tuning at test time.

    Its outer rates and betas are those of a strong ordinary GAN on the pooled samples: with a discriminator
    that learns three times as fast and without Adam's first moment, the generator's energy distance to the
    pooled glyphs falls to 0.05; with the defaults of the other methods it diverges.

    Attributes:
        batch: the most samples that the engine takes at a time; a step averages over several such batches.
    """

    outer_lr: float | tuple[float, float] = (1e-3, 3e-3)
    betas: tuple[float, float] = (0.0, 0.99)
    batch: int = 64

    name: ClassVar[str] = "joint"

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("batch", self.batch, least=1)

    def step_batch(self, *, tasks_per_step: int, shots: int, queries: int) -> int:
        return min(self.batch, tasks_per_step * (shots + queries))

    def direction(
        self, engine: Engine, phi: Tensor, rates: Tensor, batch: TaskBatch, *, seed: int, step: int
    ) -> Direction:
        real = _mixed(batch, engine)
        rows = len(real)
        # Losses are means over samples, so the mean over rows is the gradient of one large batch.
        rng = Rng(seed=seed, tasks=torch.arange(rows, dtype=torch.int64) + step * rows)
        result = engine.gradients(phi.to(engine.device, engine.dtype).expand(rows, -1), Data(real=real), rng)
        valid = (
            torch.isfinite(result.gradient.sum(1))
            & torch.isfinite(result.loss_g)
            & torch.isfinite(result.loss_d)
        )
        loss_g, loss_d = scalar_mean(result.loss_g, valid), scalar_mean(result.loss_d, valid)
        metrics = {"objective": loss_g + loss_d, "loss_g": loss_g, "loss_d": loss_d}
        return Direction(gradient=mean_of(result.gradient, valid), valid=valid, metrics=metrics)


def _mixed(batch: TaskBatch, engine: Engine) -> Tensor:
    """All samples of the meta-batch as rows [R, reals, *sample]; neighbours come from different tasks."""
    samples = torch.cat((batch.support, batch.query), dim=1).transpose(0, 1).flatten(0, 1)
    rows = len(samples) // engine.reals
    samples = samples[: rows * engine.reals].to(engine.device, engine.dtype)
    return samples.reshape(rows, engine.reals, *samples.shape[1:])
