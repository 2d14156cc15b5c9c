"""MAML for games: the meta-gradient goes exactly through the K inner steps of both players."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from ..contract import Data, Rng
from .base import QUERY_STREAM, Direction, Meta, fine_tune, mean_of, scalar_mean, whole

if TYPE_CHECKING:
    from ..contract import Adapted, Engine
    from ..tasks import TaskBatch

__all__ = ["MAML"]

OBJECTIVES = ("energy", "game", "joint")


@dataclass(frozen=True, kw_only=True)
class MAML(Meta):
    """Model-agnostic meta-learning of a GAN.

    Objectives of the adapted parameters phi_K on the query set:

    - "energy" (the default): both players descend the energy distance between generated and query samples.
      The discriminator is meta-learned to be a good teacher. With `order=1` nothing flows through the inner
      steps, and the energy distance does not depend on the discriminator at step K: it then gets the gradient
      of its own loss L_D at phi_K instead.
    - "game": the generator descends L_G(phi_K) and the discriminator L_D(phi_K). The textbook objective; it
      rewards a discriminator that sabotages its opponent through the opponent's own adaptation, and gets
      worse as it trains (docs/architecture.md).
    - "joint": the sum: the energy distance for both, and for each its own loss.

    Attributes:
        order: 2 differentiates through the inner steps; 1 (FOMAML) takes the gradient at phi_K for the one at
            phi_0.
        objective: see above.
        samples: generated samples per task in the energy distance.
        learn_rates: learn an inner rate per step and player beside phi, on the same objective (order 2 only),
            kept within a factor of ten of `inner_lr`: on a player's own loss a free rate has reached 217.
    """

    order: int = 2
    objective: str = "energy"
    samples: int = 32
    learn_rates: bool = False

    name: ClassVar[str] = "maml"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.order not in (1, 2):
            raise ValueError(f"expected order 1 or 2, got {self.order!r}")
        if self.objective not in OBJECTIVES:
            raise ValueError(f"expected objective {', '.join(map(repr, OBJECTIVES))}, got {self.objective!r}")
        whole("samples", self.samples, least=2)
        if self.learn_rates and (self.order != 2 or self.objective != "energy"):
            raise ValueError(
                "expected learn_rates with order=2 and objective='energy': rates are learned on quality only"
            )

    @property
    def learns_rates(self) -> bool:
        return self.learn_rates

    def direction(
        self, engine: Engine, phi: Tensor, rates: Tensor, batch: TaskBatch, *, seed: int, step: int
    ) -> Direction:
        adapted = fine_tune(
            engine, phi, rates, batch, seed=seed, steps=self.inner_steps, keep=self.order == 2
        )
        objective, cotangents, keep, support = self._cotangents(engine, adapted, batch, seed)
        valid = adapted.trace.valid.clone()
        rate_gradient = None
        if adapted.saved is not None:
            pulled = engine.pullback(
                adapted.saved,
                cotangents,
                keep=keep,
                support=support,
                rates=self.learn_rates,
                weight=torch.isfinite(objective).to(engine.dtype),
            )
            valid = pulled.valid & torch.isfinite(objective)
            gradient = pulled.v0.sum(0) / max(int(valid.sum()), 1)
            rate_gradient = None if pulled.d_rate is None else pulled.d_rate.sum(0)
        else:
            each = _kept(engine, cotangents, keep).sum(0)
            valid &= torch.isfinite(each.sum(1)) & torch.isfinite(objective)
            gradient = mean_of(each, valid)
        trace = adapted.trace
        metrics = {
            "objective": scalar_mean(objective, valid),
            "loss_g": scalar_mean(trace.loss_g[:, -1], valid),
            "loss_d": scalar_mean(trace.loss_d[:, -1], valid),
        }
        learned = (
            mean_of(rate_gradient.flatten(1), valid).reshape(-1, 2) if rate_gradient is not None else None
        )
        return Direction(gradient=gradient, valid=valid, metrics=metrics, rates=learned)

    def _cotangents(
        self, engine: Engine, adapted: Adapted, batch: TaskBatch, seed: int
    ) -> tuple[Tensor, Tensor, list[str], list[str]]:
        """Objective [T], cotangents [C,T,P] at phi_K, and of each the half of v_0 to keep and its support."""
        if self.objective == "energy" and self.order == 2:
            objective, quality = self._quality(engine, adapted, batch, seed)
            return objective, quality.unsqueeze(0), ["GD"], ["G"]
        losses, game = _game(engine, adapted.phi, batch, seed, self.inner_steps)
        if self.objective == "game":
            return losses, game, ["G", "D"], ["GD", "GD"]
        objective, quality = self._quality(engine, adapted, batch, seed)
        if self.objective == "joint":
            return objective, game + quality, ["G", "D"], ["GD", "GD"]
        # Energy at first order: the discriminator has no other gradient than that of its own loss.
        return objective, torch.stack((quality, game[1])), ["G", "D"], ["G", "GD"]

    def _quality(
        self, engine: Engine, adapted: Adapted, batch: TaskBatch, seed: int
    ) -> tuple[Tensor, Tensor]:
        return energy(engine, adapted.phi, batch, samples=self.samples, seed=seed, step=self.inner_steps)


def energy(
    engine: Engine, phi: Tensor, batch: TaskBatch, *, samples: int, seed: int, step: int
) -> tuple[Tensor, Tensor]:
    """Energy distance [T] between generated and query samples, and its cotangent [T, P] at phi [T, P]."""
    rng = Rng(seed=seed, tasks=batch.ids)
    z = engine.noise(rng, len(batch.ids), samples, step=step, stream=QUERY_STREAM)
    fake = engine.generate(phi, z)
    value, cotangent = engine.distance("energy", fake, batch.query.to(engine.device, engine.dtype))
    return value, engine.generate_vjp(phi, z, cotangent)


def _game(engine: Engine, phi: Tensor, batch: TaskBatch, seed: int, step: int) -> tuple[Tensor, Tensor]:
    """L_G + L_D [T] on the query set and the full gradients [2, T, P] of L_G and of L_D at phi [T, P]."""
    count, size = batch.query.shape[1], engine.reals
    if count % size:
        raise ValueError(
            f"expected queries to be a multiple of shots = {size} for losses on the query set, got {count}"
        )
    parts = count // size
    rng = Rng(seed=seed, tasks=batch.ids)
    noise = engine.noise(rng, len(batch.ids), parts * engine.fakes, step=step, stream=QUERY_STREAM)
    query = batch.query.to(engine.device, engine.dtype)
    losses, gradients = [], []
    # Losses are means over samples, so the mean over equal parts is the loss of the whole query set.
    for real, z in zip(query.chunk(parts, 1), noise.chunk(parts, 1), strict=True):
        result = engine.gradients(phi, Data(real=real.contiguous(), noise=z.contiguous()), rng, full=True)
        losses.append(result.loss_g + result.loss_d)
        gradients.append(result.gradient)
    return torch.stack(losses).mean(0), torch.stack(gradients).mean(0)


def _kept(engine: Engine, cotangents: Tensor, keep: list[str]) -> Tensor:
    """The kept half of every cotangent, the other set to zero: what `pullback` does, without the pulling."""
    kept = cotangents.clone()
    for row, half in zip(kept, keep, strict=True):
        if half == "G":
            row[:, engine.generator_parameters :] = 0
        elif half == "D":
            row[:, : engine.generator_parameters] = 0
    return kept
