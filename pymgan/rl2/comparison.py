"""Schedules against each other: on the same tasks, from the same parameters, with the same noise."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .. import metrics
from ..contract import Rng
from ..metrics.pairs import distances, mean_off_diagonal
from .controlled import ControlledLoop
from .environments.gan_control import DIVERGED
from .steering import FixedSchedule, Steering, drive

if TYPE_CHECKING:
    from ..contract import Engine
    from ..tasks import TaskBatch
    from .controls import Controls, Turn

__all__ = ["Bench", "Outcome", "best_schedule", "table", "to_json"]

JUDGE_STREAM = 4  # of the counter-based noise: not that of the seen quality
JUDGE_SAMPLES = 64
COLLAPSED = 0.25
"""Generated samples whose mean distance from each other is less than so much of the real ones' count as collapsed."""
STEP = math.log(10) / 2  # of the grid of offsets: half a decade
HALF = 2  # the grid begins at so many steps around the reference, and grows where the winner is at its edge
WIDEST = 6


@dataclass(frozen=True)
class Outcome:
    """What became of T tasks.

    Attributes:
        curve: float64 [n + 1, T], the energy distance to the query samples at the start and after each turn, at most `DIVERGED`
            times the start's, where the environment gives a task up; of a task that is not finite any more its last one, or the
            start's if that is larger.
        failed: bool [T], not finite at the end, or farther from the query samples than at the start.
        collapsed: bool [T], not failed, and the samples hardly differ from each other.
        trail: what was done, by name: "rate" [K, T, 2], "kind" [K, T], "active" [K, T, 2], losses [K, T].
    """

    curve: Tensor
    failed: Tensor
    collapsed: Tensor
    trail: dict[str, Tensor]

    @property
    def area(self) -> Tensor:
        """The mean of the curve after its start, [T]."""
        return self.curve[1:].mean(0)


@dataclass(frozen=True)
class Bench:
    """Tasks, and where their inner loops start.

    Attributes:
        engine, controls, steps: as in `ControlledLoop`.
        phi: [P] or [T, P].
        batch: of T tasks.
        offset: float64 [T, 2], the rates' offsets at the start.
        seed: of the noise.
    """

    engine: Engine
    controls: Controls
    steps: int
    phi: Tensor
    batch: TaskBatch
    offset: Tensor
    seed: int = 0

    def follow(self, steering: Steering, *, controls: Controls | None = None) -> Outcome:
        """Let somebody steer all tasks to their end; `controls` if theirs observe something else."""
        loop = ControlledLoop(
            self.engine,
            controls or self.controls,
            self.phi,
            self.batch.support,
            self.batch.ids,
            steps=self.steps,
            offset=self.offset,
            seed=self.seed,
            watch=steering.watches,
        )
        real = self.batch.query.to(self.engine.device, self.engine.dtype)
        rng = Rng(seed=self.seed, tasks=self.batch.ids)
        z = self.engine.noise(rng, len(self.batch.ids), JUDGE_SAMPLES, stream=JUDGE_STREAM)
        fake = self.engine.generate(loop.phi, z)
        first = last = self.engine.distance("energy", fake, real)[0].cpu()
        curve, trail = [first], []
        for turn in drive(loop, steering):
            fake = self.engine.generate(loop.phi, z)
            now = self.engine.distance("energy", fake, real)[0].cpu()
            fine = loop.valid & torch.isfinite(now)
            last = torch.where(fine, torch.minimum(now, DIVERGED * first), torch.maximum(last, first))
            curve.append(last)
            trail.append(_trail(turn, loop))
        within = _spread(fake)
        among = _spread(real)
        failed = ~loop.valid | ~(last <= first)
        names = trail[0]
        return Outcome(
            curve=torch.stack(curve),
            failed=failed,
            collapsed=~failed & ~(within >= COLLAPSED * among),
            trail={name: torch.cat([each[name] for each in trail]) for name in names},
        )


def _spread(samples: Tensor) -> Tensor:
    """The mean distance between samples [T, B, *sample] of a task, [T]."""
    rows = samples.flatten(2).double()
    return mean_off_diagonal(distances(rows, rows)).cpu()


def _trail(turn: Turn, loop: ControlledLoop) -> dict[str, Tensor]:
    """What was asked for in the last turn, and the losses that came of it: [m, T, ...]."""
    trace = loop.trace
    values = {"rate": turn.rate, "kind": turn.kind, "active": turn.active}
    if trace is not None:
        values |= {"loss_g": trace.loss_g.cpu(), "loss_d": trace.loss_d.cpu()}
    return {
        name: value.expand(len(loop.ids), -1, *value.shape[2:]).transpose(0, 1)
        for name, value in values.items()
    }


def best_schedule(
    controls: Controls,
    judge: Callable[[FixedSchedule], float],
    *,
    shape: str = "constant",
    relative: bool = False,
) -> tuple[FixedSchedule, float, int]:
    """The fixed schedule that `judge` gives the smallest number, a mean area on validation tasks.

    The grid is every optimiser and ratio of the controls times five rates of G times five of D, half a decade apart; it grows
    by a step where the best of an optimiser and ratio lies at its edge, and around the winner it is refined to a quarter of a
    decade.

    Args:
        controls: what may be turned.
        judge: asked once about every schedule that is tried.
        shape, relative: of `FixedSchedule`.

    Returns:
        The winner, its number, how many were tried.
    """
    known: dict[FixedSchedule, float] = {}

    def area(kind: int, ratio: int, i: float, j: float) -> float:
        schedule = FixedSchedule(kind, ratio, (i * STEP, j * STEP), shape, relative)
        if schedule not in known:
            known[schedule] = judge(schedule)
        return known[schedule]

    kinds, ratios = range(len(controls.optimisers)), range(len(controls.ratios))
    best: tuple[float, tuple[int, int, float, float]] = (math.inf, (0, 0, 0.0, 0.0))
    for kind, ratio in itertools.product(kinds, ratios):
        low, high = [-HALF, -HALF], [HALF, HALF]
        while True:
            pairs = itertools.product(range(low[0], high[0] + 1), range(low[1], high[1] + 1))
            value, *at = min((area(kind, ratio, i, j), i, j) for i, j in pairs)
            edge = [(p, side) for p in (0, 1) for side in (low, high) if at[p] == side[p]]
            edge = [(p, side) for p, side in edge if abs(side[p]) < WIDEST]
            if not edge or not math.isfinite(value):
                break
            for p, side in edge:
                side[p] += 1 if side is high else -1
        best = min(best, (value, (kind, ratio, at[0], at[1])))
    kind, ratio, i, j = best[1]
    near = [(i + a / 2, j + b / 2) for a in (-1, 0, 1) for b in (-1, 0, 1)]
    value, g, d = min((area(kind, ratio, *pair), *pair) for pair in near)
    return FixedSchedule(kind, ratio, (g * STEP, d * STEP), shape, relative), value, len(known)


def table(numbers: Mapping[str, Any], against: str) -> str:
    """The numbers of `to_json`, one line a schedule: area and distance at the end with 95 % intervals, how much smaller the area
    is than that of `against` (the interval is of the tasks' differences), failures and collapses."""
    lines = [
        f"{'schedule':<30}{'area':>18}{'less than ' + against:>28}{'at the end':>18}{'failed':>8}{'collapsed':>10}"
    ]
    for name, row in numbers.items():
        gain = row["gain_percent"]
        lines.append(
            f"{name:<30}{_pm(row['area']):>18}{gain['mean']:>20.1f} ± {gain['ci95']:.1f} %{_pm(row['final']):>18}"
            f"{row['failed']:>8}{row['collapsed']:>10}"
        )
    return "\n".join(lines)


def to_json(outcomes: Mapping[str, Outcome], against: str) -> dict[str, Any]:
    """The table's numbers."""
    rival = outcomes[against]
    return {
        name: {
            "area": metrics.summarise(outcome.area),
            "final": metrics.summarise(outcome.curve[-1]),
            "gain_percent": metrics.summarise((rival.area - outcome.area) / rival.area.mean() * 100),
            "failed": int(outcome.failed.sum()),
            "collapsed": int(outcome.collapsed.sum()),
            "curve": outcome.curve.mean(1).tolist(),
        }
        for name, outcome in outcomes.items()
    }


def _pm(summary: metrics.Summary) -> str:
    return f"{summary['mean']:.4f} ± {summary['ci95']:.4f}"
