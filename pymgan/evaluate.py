"""How good adapted generators are: the same support sets, inner steps and noise for every method."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from . import metrics
from .contract import Rng
from .meta.base import fine_tune, scalar_mean

if TYPE_CHECKING:
    from .contract import Engine
    from .rl2 import Controller
    from .tasks import TaskBatch

__all__ = [
    "METRICS",
    "RATES",
    "Contender",
    "Scores",
    "choose_rates",
    "chunks",
    "energy_after",
    "evaluate",
    "generate_after",
    "nearest_queries",
    "score",
]

METRICS = ("energy", "swd", "mmd2", "nearest_support")
SAMPLES = 64  # generated per task
STREAM = 2  # of the counter-based noise
RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)  # tried for each player when fine-tuning rates are chosen
CHUNK = 128  # tasks that are evaluated at a time: what is in memory at once does not grow with their number

Scores = dict[str, metrics.Summary]


@dataclass(frozen=True)
class Contender:
    """One row of the comparison.

    Attributes:
        name: as in summary.json.
        engine: with the method's own play and inner optimiser.
        phi: [P], where adaptation starts.
        rates: [K, 2], or None for no adaptation.
        controller: steers the adaptation instead of fixed rates; the engine is compiled for it.
    """

    name: str
    engine: Engine
    phi: Tensor
    rates: Tensor | None
    controller: Controller | None = None

    @property
    def steps(self) -> int:
        """K."""
        if self.controller is not None:
            return self.controller.recipe.steps
        return 0 if self.rates is None else len(self.rates)


def adapted(contender: Contender, batch: TaskBatch, *, seed: int) -> tuple[Tensor, Tensor]:
    """phi_K [T, P] of every task and which of them are finite, bool [T]."""
    engine, rates = contender.engine, contender.rates
    start = contender.phi.to(engine.device, engine.dtype)
    if contender.controller is not None:
        steered = contender.controller.adapt(engine, start, batch.support, batch.ids, seed=seed)
        return steered.phi, steered.valid
    if rates is None:
        return start.expand(len(batch.ids), -1), torch.ones(len(batch.ids), dtype=torch.bool)
    result = fine_tune(engine, start, rates, batch, seed=seed, steps=len(rates))
    return result.phi, result.trace.valid.cpu()


def generate_after(
    contender: Contender, batch: TaskBatch, *, seed: int, samples: int = SAMPLES
) -> tuple[Tensor, Tensor]:
    """Samples [T, samples, *shape] of the adapted generators, and which tasks are finite, bool [T]."""
    phi, valid = adapted(contender, batch, seed=seed)
    engine = contender.engine
    rng = Rng(seed=seed, tasks=batch.ids)
    z = engine.noise(rng, len(batch.ids), samples, step=contender.steps, stream=STREAM)
    return engine.generate(phi, z), valid


def energy_after(engine: Engine, phi: Tensor, rates: Tensor, batch: TaskBatch, *, seed: int) -> float:
    """Mean energy distance to the query sets after adaptation; infinite when a task does not stay finite."""
    fake, valid = generate_after(Contender("", engine, phi, rates), batch, seed=seed)
    value, _ = engine.distance("energy", fake, batch.query.to(engine.device, engine.dtype))
    valid = valid & torch.isfinite(value).cpu()
    return scalar_mean(value.cpu(), valid) if bool(valid.all()) else math.inf


def choose_rates(
    engine: Engine, phi: Tensor, steps: int, batch: TaskBatch, *, seed: int
) -> tuple[Tensor, float]:
    """The pair of `RATES` with the least energy distance on validation tasks, [steps, 2], and that."""
    best, best_value = (RATES[0], RATES[0]), math.inf
    for pair in product(RATES, RATES):
        value = energy_after(engine, phi, torch.tensor(pair).expand(steps, 2), batch, seed=seed)
        if value < best_value:
            best, best_value = pair, value
    return torch.tensor(best, dtype=torch.float64).expand(steps, 2).clone(), best_value


def evaluate(contenders: Sequence[Contender], batch: TaskBatch, *, seed: int) -> dict[str, Scores]:
    """Every metric of every contender against the query sets: `{name: {metric: {"mean", "ci95"}}}`.

    ci95 is the half-width of the 95 % interval of the mean over tasks.
    """
    scores = {one.name: score(one, batch, seed=seed) for one in contenders}
    return {
        name: {key: metrics.summarise(value) for key, value in own.items()} for name, own in scores.items()
    }


def score(contender: Contender, batch: TaskBatch, *, seed: int) -> dict[str, Tensor]:
    """Every metric [T] of one contender; a task that became non-finite counts as its last finite step."""
    parts = []
    for some in chunks(batch):  # the noise is keyed by a task's id, so no task depends on who is beside it
        fake, _ = generate_after(contender, some, seed=seed)
        parts.append(metrics.all_metrics(fake.cpu(), some))
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def nearest_queries(batch: TaskBatch) -> Tensor:
    """The metric "nearest_support", [T], of the real queries."""
    return torch.cat([metrics.nearest_support(some.query, some.support) for some in chunks(batch)])


def chunks(batch: TaskBatch) -> Iterator[TaskBatch]:
    """The tasks of a batch in order, at most `CHUNK` at a time, in parts as even as possible."""
    tasks = len(batch.ids)
    count = -(-tasks // CHUNK)
    for index in range(count):
        yield batch.part(slice(tasks * index // count, tasks * (index + 1) // count))
