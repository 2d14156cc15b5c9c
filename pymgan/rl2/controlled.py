"""Inner loops of T tasks that somebody steers, m steps at a time, in one engine call."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..contract import Data, Rng, Schedule, State
from .controls import OBSERVATIONS, Controls, Turn
from .stopwatch import Stopwatch

if TYPE_CHECKING:
    from ..contract import Engine, Trace

__all__ = ["ControlledLoop"]

QUALITY_STREAM = 3  # of the counter-based noise
SMALL = 0.01  # of the distance at the start; below it, quality is not told apart


class ControlledLoop:
    """T tasks under way from phi_0 to phi_K.

    The *seen* quality is the energy distance between generated samples and the support set: the images that one has. Its noise is
    the same at every step of a task, so that a difference between two steps is one of the generator.

    Args:
        engine: compiled with the optimisers of `controls`, in that order, and as many reals as the support has.
        controls: what may be turned.
        phi: [P] or [T, P], the starting points.
        support: [T, S, *sample].
        ids: int64 [T]; they key the noise.
        steps: K, a multiple of `controls.every`.
        samples: generated to measure a distance.
        offset: float64 [T, 2], the offsets of the rates to begin with; 0 by default.
        seed: of the noise.
        watch: measure the seen quality after every turn; a schedule that looks at nothing saves the time.
        at_work: runs while the engine does.

    Attributes:
        phi: [T, P].
        state: of the inner optimiser.
        done: int64 [T], inner steps so far.
        offset: float64 [T, 2].
        valid: bool [T]; a task that is not finite any more stands still at its last finite parameters.
        trace: of the last m steps, or None.
    """

    def __init__(
        self,
        engine: Engine,
        controls: Controls,
        phi: Tensor,
        support: Tensor,
        ids: Tensor,
        *,
        steps: int,
        samples: int = 32,
        offset: Tensor | None = None,
        seed: int = 0,
        watch: bool = True,
        at_work: Stopwatch | None = None,
    ) -> None:
        if tuple(engine.optimisers) != controls.optimisers:
            raise ValueError(
                f"[rl2] expected an engine compiled with optimisers={controls.optimisers}, got {engine.optimisers}"
            )
        if steps < 1 or steps % controls.every:
            raise ValueError(f"[rl2] expected steps as a multiple of every = {controls.every}, got {steps}")
        count = len(support)
        self.engine, self.controls, self.steps = engine, controls, steps
        self.samples, self.seed, self.watch = samples, seed, watch
        self._at_work = at_work or Stopwatch()
        self.support = support.to(engine.device, engine.dtype)
        self.ids = ids.clone()
        self.phi = phi.to(engine.device, engine.dtype).expand(count, -1).clone()
        self.state = engine.initial_state(count, self.phi)
        self.done = torch.zeros(count, dtype=torch.int64)
        self.valid = torch.ones(count, dtype=torch.bool)
        none = torch.zeros(count, 2, dtype=torch.float64)
        self.offset = none if offset is None else offset.to(torch.float64).clone()
        self.trace: Trace | None = None
        self._active = torch.ones(count, controls.every, 2, dtype=torch.bool)
        self._noise = self._draw(self.ids)
        self._generated: Tensor | None = None
        self._first = self.distance(self.support)
        self._seen = self._first
        self._before = self._first

    def act(self, change: Tensor, kind: Tensor, ratio: Tensor) -> None:
        """One action of every task and the m inner steps that follow it.

        Args:
            change: of the offsets, [T, 2] in [-1, 1], in units of `Controls.change`.
            kind, ratio: int64 [T].
        """
        self.offset = self.controls.moved(self.offset, change)
        self.run(self.controls.turn(self.offset, kind, ratio, self.done))

    def run(self, turn: Turn) -> None:
        """m inner steps as a turn says; tasks that are not valid stand still."""
        steps = turn.kind.shape[1]
        device, count = self.engine.device, len(self.ids)
        active = turn.active & self.valid[:, None, None]
        data = Data(real=self.support[:, None].expand(-1, steps, *self.support.shape[1:]))
        schedule = Schedule(
            rate=turn.rate.to(device),
            active=active.to(device).expand(count, steps, 2).contiguous(),
            kind=turn.kind.to(device).contiguous(),
        )
        rng = Rng(seed=self.seed, tasks=self.ids)
        with self._at_work:
            adapted = self.engine.adapt(self.phi, data, schedule, rng, state=self.state)
        self.phi, self.state, self.trace = adapted.phi, adapted.state, adapted.trace
        self._generated = None
        self._active = active
        self.valid = self.valid & adapted.trace.valid.cpu()
        self.done = self.done + steps
        if self.watch:
            self._before, self._seen = self._seen, self.distance(self.support)

    def distance(self, real: Tensor, rows: Tensor | None = None) -> Tensor:
        """The energy distance [T], float64, between generated samples and real ones [T, B, *sample]; with rows, int64 [R], those
        of these tasks alone, [R]."""
        with self._at_work:
            if self._generated is None:
                self._generated = self.engine.generate(self.phi, self._noise)
            fake = self._generated
            if rows is not None:
                there = rows.to(fake.device)
                fake, real = fake[there], real[there]
            return self.engine.distance("energy", fake, real)[0].cpu()

    @property
    def seen(self) -> Tensor:
        """The seen quality [T] after the last m steps, in units of what it was at the start: 1 is no better, 0 perfect."""
        return self._seen / self._first.clamp_min(1e-6)

    @property
    def improvement(self) -> Tensor:
        """How much the seen quality fell in the last m steps, [T], in the same units."""
        return (self._before - self._seen) / self._first.clamp_min(1e-6)

    @property
    def shown_reward(self) -> Tensor:
        """What a policy is shown as its last reward, [T]: the improvement, where it may observe that."""
        return self.improvement if "improvement" in self.controls.observe else torch.zeros_like(self._first)

    def observation(self) -> Tensor:
        """What a controller sees, float32 [T, len(OBSERVATIONS)]; losses, scores and norms are means over the last m steps in
        which the player moved, 0 before the first action."""
        count = len(self.ids)
        begun = (self.done > 0).double()
        columns = [torch.zeros(count, dtype=torch.float64)] * 9
        if self.trace is not None:
            moves = self._active.double().transpose(0, 2).transpose(1, 2)  # [2, T, m]
            traced = self.trace
            entries = (
                (traced.loss_g, moves[0]),
                (traced.loss_d, moves[1]),
                *((each, moves[1]) for each in (traced.fake_mean, traced.fake_std)),
                *((each, moves[1]) for each in (traced.real_mean, traced.real_std)),
                (traced.norm_g.clamp_min(1e-8).log(), moves[0]),
                (traced.norm_d.clamp_min(1e-8).log(), moves[1]),
            )
            columns = [_mean(values.cpu().double(), weight) for values, weight in entries]
            columns.append(columns[6] - columns[7])
            columns = [torch.where(begun > 0, column, 0.0) for column in columns]
        columns += [
            self.offset[:, 0],
            self.offset[:, 1],
            1 - self.done / self.steps,
            (self.seen.clamp_min(0) + SMALL).log(),
            self.improvement,
            begun,
        ]
        given = torch.tensor([float(name in self.controls.observe) for name in OBSERVATIONS])
        return torch.stack(columns, 1).nan_to_num(0.0, 1e6, -1e6).float() * given

    def replace(self, rows: Tensor, phi: Tensor, support: Tensor, ids: Tensor, offset: Tensor) -> None:
        """Put new tasks at their start in place of those where rows, bool [T], is True.

        Args:
            phi: [P] or [R, P] of R new tasks; support: [R, S, *sample]; ids: int64 [R]; offset: [R, 2].
        """
        engine, where = self.engine, rows.nonzero().flatten()
        there = where.to(engine.device)
        start = phi.to(engine.device, engine.dtype).expand(len(where), -1).contiguous()
        noise = self._draw(ids)
        # In place: what a step returned is this loop's own, and to copy all tasks costs as much as to train them.
        self.phi.index_copy_(0, there, start)
        fresh = engine.initial_state(len(where), start)
        for field in fields(State):
            getattr(self.state, field.name).index_copy_(0, there, getattr(fresh, field.name))
        self.support = self.support.index_copy(0, there, support.to(engine.device, engine.dtype))
        self._noise.index_copy_(0, there, noise)
        if self._generated is not None:
            with self._at_work:
                self._generated.index_copy_(0, there, engine.generate(start, noise))
        self.ids, self.offset = self.ids.index_copy(0, where, ids), self.offset.index_copy(0, where, offset)
        self.done, self.valid = self.done.masked_fill(rows, 0), self.valid | rows
        now = self.distance(self.support, where)
        self._first, self._seen, self._before = (
            old.index_copy(0, where, now) for old in (self._first, self._seen, self._before)
        )

    def _draw(self, ids: Tensor) -> Tensor:
        rng = Rng(seed=self.seed, tasks=ids)
        return self.engine.noise(rng, len(ids), self.samples, stream=QUALITY_STREAM)


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    """[T], over the last axis; what has no weight does not count, even where it is not finite."""
    return torch.where(weight > 0, values, 0.0).sum(1) / weight.sum(1).clamp_min(1)
