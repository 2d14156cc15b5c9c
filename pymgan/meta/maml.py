"""MAML for games: the meta-gradient goes exactly through the K inner steps of both players."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from ..contract import Objective, Rng, Schedule
from .base import QUERY_STREAM, Direction, Meta, mean_of, scalar_mean, support_data, whole

if TYPE_CHECKING:
    from ..contract import Engine
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
      worse as it trains.
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
        result = engine.meta_gradient(
            phi.to(engine.device, engine.dtype),
            support_data(batch, engine, self.inner_steps),
            Schedule(rate=rates.to(engine.device)),
            Rng(seed=seed, tasks=batch.ids),
            self._objective(batch.query.to(engine.device, engine.dtype)),
            order=self.order,
            rates=self.learn_rates,
        )
        trace, valid = result.trace, result.trace.valid
        learned = None if result.d_rate is None else mean_of(result.d_rate.flatten(1), valid).reshape(-1, 2)
        return Direction(
            gradient=result.gradient,
            valid=valid,
            metrics={
                "objective": scalar_mean(result.value, valid),
                "loss_g": scalar_mean(trace.loss_g[:, -1], valid),
                "loss_d": scalar_mean(trace.loss_d[:, -1], valid),
            },
            rates=learned,
        )

    def _objective(self, query: Tensor) -> Objective:
        if self.objective == "game":
            return Objective(query, samples=0, losses=(1.0, 1.0), stream=QUERY_STREAM)
        losses = (1.0, 1.0) if self.objective == "joint" else (0.0, 0.0)
        if self.objective == "energy" and self.order == 1:
            losses = (0.0, 1.0)  # the discriminator has no other gradient than that of its own loss
        return Objective(query, samples=self.samples, losses=losses, stream=QUERY_STREAM)
