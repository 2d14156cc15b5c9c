"""Engines in Python that execute the compiled instruction lists over all tasks at once: all but the instructions themselves.

An engine derives from `ListEngine` and says how one list is executed on a `Frame`, the slots of one step.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

import pymgan._core as _core
from pymgan.checks import (
    check_adapt,
    check_distance,
    check_generate,
    check_gradients,
    check_noise,
    check_pullback,
    check_saved,
)
from pymgan.contract import (
    TRACE,
    Adapted,
    Data,
    Gradients,
    MetaGradient,
    Objective,
    Pulled,
    Rng,
    Saved,
    Schedule,
    State,
    Trace,
)
from pymgan.frame import Compiled, Frame, Values, noise_key
from pymgan.gan import GAN
from pymgan.meta_gradient import compose
from pymgan.plan import Plan, compile_game, compile_plan
from pymgan.task_sum import in_order, reduce_tasks
from pymgan.updates import count_updates

__all__ = ["ListEngine"]

EXTRAGRADIENT = "extragradient"  # the kind whose steps have a form of their own


class _Snapshot(NamedTuple):
    """Before a step: phi [T, P], moments [T, moments * P], (u, v) of D's spectral norms [T, U + V]."""

    phi: Tensor
    moment: Tensor
    spectral: Tensor


@dataclass
class _Kept(Saved):
    """Snapshots (phi, moments, (u, v) of spectral norms) by slot, residuals by step and form, and the arguments of ``adapt``."""

    tasks: int
    steps: int
    storage: Any
    slots: dict[int, _Snapshot]
    residuals: list[list[Values]]
    batches: _Batches
    moves: _Moves
    valid: Tensor


@dataclass
class _Moves:
    """The schedule of every step: rate, active and number [T, K, 2], scale [P] or None, kind [T, K]."""

    rate: Tensor
    active: Tensor
    scale: Tensor | None
    kind: Tensor
    number: Tensor


@dataclass
class _Batches:
    """The data and noise of every step."""

    data: Data
    rng: Rng
    count: Tensor

    def real(self, k: int | None) -> Tensor:
        real, indices = self.data.real, self.data.indices
        if indices is not None:
            return real[(indices if k is None else indices[:, k]).to(real.device).long()].flatten(2)
        return (real if k is None else real[:, k]).flatten(2)

    def noise(self, k: int | None) -> Tensor | None:
        """The caller's z [T, fakes, features]."""
        z = self.data.noise
        return None if z is None else (z if k is None else z[:, k]).flatten(2)

    def key(self, k: int | None) -> Tensor:
        return noise_key(self.rng, self.count + (k or 0))

    def penalised(self, k: int, every: int) -> Tensor:
        """bool [T], the tasks for which D's penalty counts in this step."""
        return (self.count + k) % every == 0


class ListEngine(ABC):
    """The contract (:class:`~pymgan.contract.Engine`) for an engine that executes one list after the other over all tasks."""

    name: ClassVar[str]

    @abstractmethod
    def _normals(self, key: Tensor, stream: int, rows: int, columns: int) -> Tensor:
        """Standard normals [T, rows, columns] of a `noise_key` and a stream."""

    @abstractmethod
    def _run(self, procedure: Any, frame: Frame) -> None:
        """Executes a procedure on a frame."""

    def __init__(
        self,
        gan: GAN,
        *,
        fakes: int,
        reals: int,
        play: str,
        optimisers: tuple[str, ...],
        momentum: float,
        betas: tuple[float, float],
        eps: float,
        storage: str,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.gan = gan
        self.plan: Plan = compile_plan(gan)
        self.fakes, self.reals, self.play, self.storage = fakes, reals, play, storage
        self.optimisers = optimisers
        self.dtype, self.device, self.threads = dtype, device, torch.get_num_threads()
        self.program = _core.Program(
            self.plan.core,
            compile_game(
                gan,
                fakes=fakes,
                reals=reals,
                play=play,
                optimisers=optimisers,
                momentum=momentum,
                betas=betas,
                eps=eps,
                keep_all=storage == "all",
            ),
        )
        self.compiled = Compiled(self.program, device)
        self.moments: int = self.program.moments
        # One kind for each form that a step can have.
        self._forms = [kind for kind in optimisers if kind != EXTRAGRADIENT][:1]
        self._forms += [kind for kind in optimisers if kind == EXTRAGRADIENT]

    @property
    def parameters(self) -> int:
        return self.plan.parameters

    @property
    def generator_parameters(self) -> int:
        return self.plan.generator_parameters

    @property
    def latent(self) -> tuple[int, ...]:
        return self.plan.latent

    @property
    def sample(self) -> tuple[int, ...]:
        return self.plan.sample

    def initial_state(self, tasks: int, phi: Tensor | None = None) -> State:
        """The state of `tasks` tasks before any step; see :meth:`pymgan.contract.Engine.initial_state`."""
        count, updates, kind = (
            torch.zeros(tasks, *shape, dtype=torch.int64, device=self.device) for shape in ((), (2,), (2,))
        )
        norms = self.plan.spectral(None if phi is None else phi.detach().expand(tasks, -1))
        norms = norms.to(self.device, self.dtype).expand(tasks, -1)
        return State(self._zeros(tasks, self.moments * self.parameters), count, updates, kind, norms)

    @torch.no_grad()
    def adapt(
        self,
        phi: Tensor,
        data: Data,
        schedule: Schedule,
        rng: Rng,
        *,
        state: State | None = None,
        keep: bool = False,
    ) -> Adapted:
        """Runs K inner steps on every task; see :meth:`pymgan.contract.Engine.adapt`."""
        tasks, steps = check_adapt(self, phi, data, schedule, rng, state)
        state = state if state is not None else self.initial_state(tasks, phi)
        updates = count_updates(self, schedule, tasks, steps, state)
        active = self._true(2) if schedule.active is None else schedule.active
        moves = _Moves(
            rate=schedule.rate.detach().to(self.device, self.dtype).expand(tasks, steps, 2),
            active=active.expand(tasks, steps, 2),
            scale=None if schedule.scale is None else schedule.scale.detach().to(self.device, self.dtype),
            kind=updates.kind,
            number=torch.ones(tasks, steps, 2, device=self.device)
            if updates.number is None
            else updates.number,
        )
        batches = _Batches(data, rng, state.count.to(self.device))
        storage = _core.StorageSchedule(self.storage, steps)
        trace, valid = self._zeros(tasks, steps, len(TRACE)), self._true(tasks)
        at = _Snapshot(
            phi.detach().expand(tasks, -1).clone(), state.moments, self.compiled.spectral_in(state.spectral)
        )
        done = torch.zeros(tasks, dtype=torch.int64, device=self.device)
        saved = _Kept(tasks, steps, storage, {}, [], batches, moves, valid) if keep else None
        slots = storage.slot_of_step
        for k in range(steps):
            if saved is not None and slots[k] >= 0:
                saved.slots[slots[k]] = at
            frame, residuals = self._step(at, batches, moves, k, valid)
            trace[:, k] = frame.trace
            after = _Snapshot(frame.phi_next, frame.moment_next, frame.spectral_next)
            for part in after:
                valid &= torch.isfinite(part).all(1)
            at = _Snapshot(
                *(torch.where(valid[:, None], new, old) for new, old in zip(after, at, strict=True))
            )
            done += valid
            if saved is not None:
                saved.residuals.append(residuals)
        if saved is not None and slots[steps] >= 0:
            saved.slots[slots[steps]] = at
        columns = {name: trace[..., i] for i, name in enumerate(TRACE)}
        norms = self.compiled.spectral_out(at.spectral)
        end = State(at.moment.clone(), batches.count + done, *updates.after(done), norms)
        return Adapted(at.phi.clone(), end, Trace(valid=valid.clone(), **columns), saved)

    @torch.no_grad()
    def pullback(
        self,
        saved: Saved,
        cotangents: Tensor,
        *,
        state_cotangents: Tensor | None = None,
        keep: Sequence[str] | str | None = None,
        support: Sequence[str] | str | None = None,
        rates: bool = False,
        weight: Tensor | None = None,
    ) -> Pulled:
        """Pulls cotangents of phi_K back to phi_0, exactly; see :meth:`pymgan.contract.Engine.pullback`."""
        kept = check_saved(saved, _Kept)
        v, v_state, keeps, supports, bare = check_pullback(
            self,
            kept.tasks,
            cotangents,
            state_cotangents=state_cotangents,
            keep=keep,
            support=support,
            weight=weight,
        )
        v = v.clone()
        v_moment = None
        if self.moments:
            v_moment = self._zeros(*v.shape[:-1], self.moments * self.parameters)
            v_moment = v_moment if v_state is None else v_state.clone()
        for c, half in enumerate(supports):
            for each in (v, v_moment):
                self._clear(each, c, half)
        d_rate = self._zeros(len(v), kept.tasks, kept.steps, 2)
        # Without rates nobody writes it, so there is nothing to copy.
        d_scale = torch.zeros_like(v) if rates else self._zeros(len(v), kept.tasks, 0)
        slots = dict(kept.slots)
        everything = ["GD"] * len(v)
        for kind, k, source, target in kept.storage.pullback:
            at = slots[source]
            if kind == "step":
                everyone = self._true(kept.tasks)
                frame, _ = self._step(at, kept.batches, kept.moves, k, everyone)
                slots[target] = _Snapshot(frame.phi_next, frame.moment_next, frame.spectral_next)
                continue
            last, first = k == kept.steps - 1, k == 0
            halves = supports if last else everything, keeps if first else everything
            frames = []
            for i, form in enumerate(self._forms):
                frame = self._step_frame(at, kept.batches, kept.moves, k)
                if self.storage == "all":
                    frame.residual = kept.residuals[k][i]
                    frame.phi_next, _, frame.spectral_next = slots[kept.storage.slot_of_step[k + 1]]
                frame.cotangent, frame.d_scale, frame.d_rate = (
                    v.clone(),
                    d_scale.clone(),
                    d_rate[:, :, k].clone(),
                )
                if v_moment is not None:
                    frame.v_moment = v_moment.clone()
                procedure = self.program.pull(*halves, rates, kept.moves.scale is not None, form)
                self._run(procedure, frame)
                frames.append(frame)
            v, d_scale, d_rate[:, :, k] = (
                self._of_own_form(frames, name, 1) for name in ("cotangent", "d_scale", "d_rate")
            )
            if v_moment is not None:
                v_moment = self._of_own_form(frames, "v_moment", 1)
        for c, half in enumerate(keeps):
            self._clear(v, c, half)

        def of_valid(r: Tensor) -> Tensor:
            return r.where(kept.valid.view(1, -1, *[1] * (r.ndim - 2)), 0.0)

        valid, v0 = kept.valid, of_valid(v)
        state_v0 = None if v_moment is None else of_valid(v_moment)
        rate, scale = (of_valid(d_rate), of_valid(d_scale)) if rates else (None, None)
        if weight is not None:
            valid, v0, state_v0, scale = reduce_tasks(valid, weight, v0, state_v0, scale, self._sum_tasks)
        if not bare:
            return Pulled(v0, state_v0, rate, scale, valid)
        state_v0, rate, scale = (None if r is None else r[0] for r in (state_v0, rate, scale))
        return Pulled(v0[0], state_v0, rate, scale, valid)

    def _sum_tasks(self, value: Tensor, weight: Tensor, counts: Tensor) -> Tensor:
        """See :func:`pymgan.task_sum.in_order`."""
        return in_order(value, weight, counts)

    @torch.no_grad()
    def meta_gradient(
        self,
        phi: Tensor,
        data: Data,
        schedule: Schedule,
        rng: Rng,
        objective: Objective,
        *,
        order: int = 2,
        rates: bool = False,
    ) -> MetaGradient:
        """The meta-gradient of an objective; see :meth:`pymgan.contract.Engine.meta_gradient`."""
        return compose(self, phi, data, schedule, rng, objective, order=order, rates=rates)

    @torch.no_grad()
    def gradients(
        self, phi: Tensor, data: Data, rng: Rng, *, full: bool = False, state: State | None = None
    ) -> Gradients:
        """Both players' losses and gradients on one batch; see :meth:`pymgan.contract.Engine.gradients`."""
        tasks = check_gradients(self, phi, data, rng, state)
        state = state if state is not None else self.initial_state(tasks, phi)
        batches = _Batches(data, rng, torch.zeros(tasks, dtype=torch.int64, device=self.device))
        frame = Frame(
            phi.detach().expand(tasks, -1),
            spectral=self.compiled.spectral_in(state.spectral),
            gradient=self._zeros(2, tasks, self.parameters),
            noise=batches.noise(None),
            real=batches.real(None),
            penalised=self._true(tasks),
            key=batches.key(None),
            trace=self._zeros(tasks, len(TRACE)),
            valid=self._true(tasks),
        )
        self._run(self.program.gradients(full), frame)
        return Gradients(frame.trace[:, 0], frame.trace[:, 1], frame.gradient if full else frame.gradient[0])

    def noise(self, rng: Rng, tasks: int, n: int, *, step: int = 0, stream: int = 0) -> Tensor:
        """Standard normals [T, n, *latent] of (seed, task, step, stream); see :meth:`pymgan.contract.Engine.noise`."""
        check_noise(rng, tasks, n, step, stream)
        key = noise_key(rng, torch.full((tasks,), step, device=self.device))
        return self._normals(key, stream, n, math.prod(self.latent)).view(tasks, n, *self.latent)

    @torch.no_grad()
    def generate(self, phi: Tensor, z: Tensor) -> Tensor:
        """G's samples [T, B, *sample] of z [T, B, *latent]."""
        tasks, batch = check_generate(self, phi, z)
        frame = Frame(phi.detach().expand(tasks, -1), inputs=(z.flatten(2),))
        self._run(self.program.generate(batch), frame)
        return frame.output.reshape(tasks, batch, *self.sample)

    @torch.no_grad()
    def generate_vjp(self, phi: Tensor, z: Tensor, cotangent: Tensor) -> Tensor:
        """[T, P]: the cotangent [T, B, *sample] of G's samples pulled back to the parameters (D's half is zero)."""
        tasks, batch = check_generate(self, phi, z, cotangent)
        gradient = self._zeros(1, tasks, self.parameters)
        frame = Frame(
            phi.detach().expand(tasks, -1), inputs=(z.flatten(2), cotangent.flatten(2)), gradient=gradient
        )
        self._run(self.program.generate_vjp(batch), frame)
        return gradient[0]

    @torch.no_grad()
    def distance(self, kind: str, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """(value [T] float64, cotangent of a) of a distance between samples [T, B, *], by the compiled core on the host."""
        check_distance(kind, a, b)
        host = [x.detach().to("cpu").contiguous() for x in (a, b)]
        value, cotangent = torch.empty(len(a), dtype=torch.float64), torch.empty_like(host[0])
        _core.distance(
            a.dtype == torch.float64,
            {
                "tasks": a.shape[0],
                "a_count": a.shape[1],
                "b_count": b.shape[1],
                "features": math.prod(a.shape[2:]),
                "threads": 1,
                "a": host[0].data_ptr(),
                "b": host[1].data_ptr(),
                "value": value.data_ptr(),
                "cotangent": cotangent.data_ptr(),
            },
        )
        return value.to(a.device), cotangent.to(a.device)

    def _true(self, count: int) -> Tensor:
        return torch.ones(count, dtype=torch.bool, device=self.device)

    def _zeros(self, *shape: int) -> Tensor:
        return torch.zeros(*shape, dtype=self.dtype, device=self.device)

    def _step(
        self, at: _Snapshot, batches: _Batches, moves: _Moves, k: int, valid: Tensor
    ) -> tuple[Frame, list[Values]]:
        """One step of all tasks, and the residuals of each form; clears `valid` where a number is not finite.

        All tasks make a step of every form and take what is of their own kind's.
        """
        frames = []
        for form in self._forms:
            frame = self._step_frame(at, batches, moves, k)
            frame.trace, frame.valid = self._zeros(len(at.phi), len(TRACE)), valid.clone()
            self._run(self.program.step_of(form), frame)
            frames.append(frame)
        result = frames[0]
        for name in ("phi_next", "moment_next", "spectral_next", "trace"):
            setattr(result, name, self._of_own_form(frames, name, 0))
        valid &= self._of_own_form(frames, "valid", 0)
        return result, [frame.residual for frame in frames]

    def _of_own_form(self, frames: list[Frame], name: str, dimension: int) -> Tensor:
        """What a slot holds after each task's own form of the step; the tasks lie along `dimension`."""
        each: list[Tensor] = [getattr(frame, name) for frame in frames]
        if len(each) == 1:
            return each[0]
        extra = frames[0].kind == self.optimisers.index(EXTRAGRADIENT)
        return torch.where(extra.view(-1, *[1] * (each[0].ndim - 1 - dimension)), each[1], each[0])

    def _step_frame(self, at: _Snapshot, batches: _Batches, moves: _Moves, k: int) -> Frame:
        return Frame(
            at.phi,
            phi_next=torch.full_like(at.phi, math.nan),
            moment=at.moment,
            moment_next=torch.full_like(at.moment, math.nan),
            spectral=at.spectral,
            spectral_next=torch.full_like(at.spectral, math.nan),
            rate_scale=moves.scale,
            rate=moves.rate[:, k],
            active=moves.active[:, k],
            kind=moves.kind[:, k],
            number=moves.number[:, k],
            noise=batches.noise(k),
            real=batches.real(k),
            penalised=batches.penalised(k, self.program.game.penalty_every),
            key=batches.key(k),
        )

    def _clear(self, v: Tensor | None, c: int, half: str) -> None:
        """Zeroes the halves of cotangent c, or of the moments', that `half` does not name."""
        if v is not None:
            vectors = v[c].view(len(v[c]), -1, self.parameters)
            if "G" not in half:
                vectors[..., : self.generator_parameters] = 0
            if "D" not in half:
                vectors[..., self.generator_parameters :] = 0
