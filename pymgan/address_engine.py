"""Engines whose inner loop is compiled: checks and lays out tensors, then hands their addresses to the core.

An engine derives from `AddressEngine` and says how the core is called.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from pymgan.buffers import Buffers
from pymgan.checks import (
    check_adapt,
    check_generate,
    check_gradients,
    check_meta_gradient,
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
from pymgan.gan import GAN
from pymgan.plan import Plan, compile_game, compile_plan
from pymgan.updates import Updates, count_updates


@dataclass
class Kept(Saved):
    """What ``adapt(keep=True)`` leaves for ``pullback``: the core's buffer, and everything that its call points at."""

    pool: Buffers
    buffer: Tensor
    call: dict[str, Any]
    alive: tuple[Tensor | None, ...]
    valid: Tensor
    tasks: int
    steps: int

    def __del__(self) -> None:
        self.pool.give(self.buffer)


class AddressEngine(ABC):
    """The contract (:class:`~pymgan.contract.Engine`) for an engine that the core executes as a whole."""

    name: ClassVar[str]
    threads: int
    _core: Any

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
        pool: Buffers,
    ) -> None:
        self.gan = gan
        self.plan: Plan = compile_plan(gan)
        self.fakes, self.reals, self.play, self.storage = fakes, reals, play, storage
        self.optimisers, self.dtype, self.device = optimisers, dtype, device
        game = compile_game(
            gan,
            fakes=fakes,
            reals=reals,
            play=play,
            optimisers=optimisers,
            momentum=momentum,
            betas=betas,
            eps=eps,
        )
        self._pool = pool
        self._core = self._make_core(game)
        self.moments: int = self._core.program.moments

    @abstractmethod
    def _make_core(self, game: Any) -> Any:
        """The core's engine for this plan and game."""

    @abstractmethod
    def _execute(self, what: str, shape: tuple[Any, ...], call: dict[str, Any]) -> None:
        """Has the core execute a call of the contract: numbers and addresses, the workspace not among them.

        Args:
            what: "adapt", "pullback", "meta_gradient", "gradients" or "generate".
            shape: what its room depends on: (steps,), (support, keep, rates, scaled, steps), (steps, samples, queries, losses,
                second_order, rates, scaled), (full,) or (batch, vjp).
            call: of ``csrc/cpu/engine.h``.
        """

    @abstractmethod
    def noise(self, rng: Rng, tasks: int, n: int, *, step: int = 0, stream: int = 0) -> Tensor:
        """Standard normals [T, n, *latent] of (seed, task, step, stream); see :meth:`pymgan.contract.Engine.noise`."""

    @abstractmethod
    def distance(self, kind: str, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """(value [T] float64, cotangent of a) of a distance between samples [T, B, *]; kind "energy" (unbiased)."""

    @property
    def program(self) -> Any:
        """The instruction lists; ``print(engine.program.step)`` is a table."""
        return self._core.program

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
        moments = self._empty(tasks, self.moments * self.parameters).zero_()
        count, updates, kind = (self._zeros(torch.int64, tasks, *shape) for shape in ((), (2,), (2,)))
        return State(moments, count, updates, kind, self._norms(tasks, phi))

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
        phi0, phi_stride = self._parameters(phi, tasks)
        count = state.count.to(self.device)
        batches, alive = self._batches(data, rng, count, per_step=True)
        updates = count_updates(self, schedule, tasks, steps, state)
        inner, inner_alive = self._schedule(schedule, updates)
        moments = state.moments.to(self.dtype).contiguous()
        out = self._empty(tasks, self.parameters)
        moments_out = self._empty(tasks, self.moments * self.parameters)
        norms = state.spectral.to(self.dtype).contiguous()
        norms_out = self._empty(*norms.shape)
        trace = self._empty(tasks, steps, len(TRACE)).zero_()
        valid, done = self._zeros(torch.uint8, tasks), self._zeros(torch.int64, tasks)
        saved = self._pool.take(tasks * self._core.saved_elements(steps)) if keep else None
        call: dict[str, Any] = {"tasks": tasks, "steps": steps, **batches, **inner}
        self._execute(
            "adapt",
            (steps,),
            {
                **call,
                "phi0": phi0.data_ptr(),
                "phi0_task": phi_stride,
                "moment0": moments.data_ptr() if self.moments else 0,
                "spectral0": norms.data_ptr(),
                "phi": out.data_ptr(),
                "moment": moments_out.data_ptr() if self.moments else 0,
                "spectral": norms_out.data_ptr(),
                "trace": trace.data_ptr(),
                "valid": valid.data_ptr(),
                "done": done.data_ptr(),
                "saved": _address(saved),
            },
        )
        kept = None
        if saved is not None:
            kept = Kept(self._pool, saved, call, (*alive, *inner_alive), valid, tasks, steps)
        columns = {name: trace[..., i] for i, name in enumerate(TRACE)}
        return Adapted(
            phi=out,
            state=State(moments_out, count + done, *updates.after(done), norms_out),
            trace=Trace(valid=valid.bool(), **columns),
            saved=kept,
        )

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
        kept = check_saved(saved, Kept)
        v, v_state, keeps, supports, bare = check_pullback(
            self,
            kept.tasks,
            cotangents,
            state_cotangents=state_cotangents,
            keep=keep,
            support=support,
            weight=weight,
        )
        count = v.shape[0]
        shape = tuple(v.shape) if weight is None else (count, self.parameters)
        v0 = self._empty(*shape)
        state_v0 = self._empty(*shape[:-1], self.moments * self.parameters) if self.moments else None
        d_rate = self._zeros(torch.float64, count, kept.tasks, kept.steps, 2) if rates else None
        d_scale = self._empty(*shape) if rates else None
        weight = None if weight is None else weight.detach().to(torch.float64).contiguous()
        valid = kept.valid.clone()
        self._execute(
            "pullback",
            (supports, keeps, rates, bool(kept.call["scale"]), kept.steps),
            {
                **kept.call,
                "support": supports,
                "keep": keeps,
                "rates": rates,
                "weight": _address(weight),
                "valid": valid.data_ptr(),
                "saved": kept.buffer.data_ptr(),
                "v": v.data_ptr(),
                "v_moment": _address(v_state),
                "v0": v0.data_ptr(),
                "v_moment0": _address(state_v0),
                "d_rate": _address(d_rate),
                "d_scale": _address(d_scale),
            },
        )
        rate = None if d_rate is None else d_rate.to(self.dtype)
        if not bare:
            return Pulled(v0, state_v0, rate, d_scale, valid.bool())
        state_v0, rate, d_scale = (None if r is None else r[0] for r in (state_v0, rate, d_scale))
        return Pulled(v0[0], state_v0, rate, d_scale, valid.bool())

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
        tasks, steps = check_meta_gradient(self, phi, data, schedule, rng, objective, order, rates)
        flat, phi_stride = self._parameters(phi, tasks)
        batches, _alive = self._batches(data, rng, self._zeros(torch.int64, tasks), per_step=True)
        inner, _inner_alive = self._schedule(schedule, count_updates(self, schedule, tasks, steps))
        query = objective.query.detach().contiguous()
        noise = None if objective.noise is None else objective.noise.detach().contiguous()
        gradient = self._empty(self.parameters)
        norms = self._norms(tasks, phi)
        value, valid = self._zeros(torch.float64, tasks), self._zeros(torch.uint8, tasks)
        trace = self._empty(tasks, steps, len(TRACE)).zero_()
        d_rate = self._zeros(torch.float64, tasks, steps, 2) if rates else None
        self._execute(
            "meta_gradient",
            (
                steps,
                objective.samples,
                query.shape[1],
                objective.losses,
                order == 2,
                rates,
                bool(inner["scale"]),
            ),
            {
                "tasks": tasks,
                "steps": steps,
                **batches,
                **inner,
                "phi0": flat.data_ptr(),
                "phi0_task": phi_stride,
                "spectral0": norms.data_ptr(),
                "samples": objective.samples,
                "losses": objective.losses,
                "queries": query.shape[1],
                "query": query.data_ptr(),
                "query_noise": _address(noise),
                "noise_stream": objective.stream,
                "second_order": order == 2,
                "rates": rates,
                "gradient": gradient.data_ptr(),
                "value": value.data_ptr(),
                "trace": trace.data_ptr(),
                "valid": valid.data_ptr(),
                "d_rate": _address(d_rate),
            },
        )
        columns = {name: trace[..., i] for i, name in enumerate(TRACE)}
        rate = None if d_rate is None else d_rate.to(self.dtype)
        return MetaGradient(gradient, value, Trace(valid=valid.bool(), **columns), rate)

    def gradients(
        self, phi: Tensor, data: Data, rng: Rng, *, full: bool = False, state: State | None = None
    ) -> Gradients:
        """Both players' losses and gradients on one batch; see :meth:`pymgan.contract.Engine.gradients`."""
        tasks = check_gradients(self, phi, data, rng, state)
        state = state if state is not None else self.initial_state(tasks, phi)
        norms = state.spectral.to(self.dtype).contiguous()
        flat, phi_stride = self._parameters(phi, tasks)
        batches, _alive = self._batches(data, rng, self._zeros(torch.int64, tasks), per_step=False)
        gradient = self._empty(2 if full else 1, tasks, self.parameters)
        trace = self._empty(tasks, len(TRACE)).zero_()
        self._execute(
            "gradients",
            (full,),
            {
                "tasks": tasks,
                "full": full,
                **batches,
                "phi": flat.data_ptr(),
                "phi_task": phi_stride,
                "spectral": norms.data_ptr(),
                "gradient": gradient.data_ptr(),
                "trace": trace.data_ptr(),
            },
        )
        return Gradients(trace[:, 0], trace[:, 1], gradient if full else gradient[0])

    def generate(self, phi: Tensor, z: Tensor) -> Tensor:
        """G's samples [T, B, *sample] of z [T, B, *latent]."""
        return self._generate(phi, z, None)

    def generate_vjp(self, phi: Tensor, z: Tensor, cotangent: Tensor) -> Tensor:
        """[T, P]: the cotangent [T, B, *sample] of G's samples pulled back to the parameters (D's half is zero)."""
        return self._generate(phi, z, cotangent)

    def _generate(self, phi: Tensor, z: Tensor, cotangent: Tensor | None) -> Tensor:
        tasks, batch = check_generate(self, phi, z, cotangent)
        flat, phi_stride = self._parameters(phi, tasks)
        z = z.to(self.dtype).contiguous()
        cotangent = None if cotangent is None else cotangent.to(self.dtype).contiguous()
        out = (
            self._empty(tasks, batch, *self.sample)
            if cotangent is None
            else self._empty(tasks, self.parameters).zero_()
        )
        self._execute(
            "generate",
            (batch, cotangent is not None),
            {
                "tasks": tasks,
                "batch": batch,
                "phi": flat.data_ptr(),
                "phi_task": phi_stride,
                "z": z.data_ptr(),
                "cotangent": _address(cotangent),
                "out": out.data_ptr(),
            },
        )
        return out

    def _empty(self, *shape: int) -> Tensor:
        return self._pool.result(*shape)

    def _zeros(self, dtype: torch.dtype, *shape: int) -> Tensor:
        return torch.zeros(*shape, dtype=dtype, device=self.device)

    def _norms(self, tasks: int, phi: Tensor | None) -> Tensor:
        """u [T, U] of a new state."""
        phi = None if phi is None else self._parameters(phi, tasks)[0].view(-1, self.parameters)
        return self.plan.spectral(phi).to(self.device, self.dtype).expand(tasks, -1).contiguous()

    def _parameters(self, phi: Tensor, tasks: int) -> tuple[Tensor, int]:
        """phi's rows contiguous, and the stride between tasks: 0 if they share one row."""
        phi = phi.detach().to(self.dtype)
        if phi.dim() == 1 or phi.stride(0) == 0 or phi.shape[0] == 1:
            return phi.reshape(-1, self.parameters)[0].contiguous(), 0
        return phi.contiguous(), self.parameters

    def _batches(
        self, data: Data, rng: Rng, count: Tensor, *, per_step: bool
    ) -> tuple[dict[str, Any], tuple[Tensor | None, ...]]:
        real, indices, noise = data.real.detach().to(self.dtype), data.indices, data.noise
        leading = 2 if per_step else 1
        call: dict[str, Any] = {"seed": rng.seed}
        if indices is None:
            real = _dense_inside(real, leading)
            call |= {"real_task": real.stride(0), "real_step": real.stride(1) if per_step else 0}
        else:
            real = real.contiguous()
            indices = _dense_inside(indices.to(torch.int32), leading)
            call |= {
                "indices": indices.data_ptr(),
                "index_task": indices.stride(0),
                "index_step": indices.stride(1) if per_step else 0,
            }
        if noise is not None:
            noise = _dense_inside(noise.detach().to(self.dtype), leading)
            call |= {
                "noise": noise.data_ptr(),
                "noise_task": noise.stride(0),
                "noise_step": noise.stride(1) if per_step else 0,
            }
        numbers, count = rng.tasks.to(self.device).contiguous(), count.contiguous()
        call |= {"real": real.data_ptr(), "task_numbers": numbers.data_ptr(), "count": count.data_ptr()}
        return call, (real, indices, noise, numbers, count)

    def _schedule(
        self, schedule: Schedule, updates: Updates
    ) -> tuple[dict[str, Any], tuple[Tensor | None, ...]]:
        tasks, steps = updates.kind.shape
        rate = schedule.rate.detach().to(torch.float64).expand(tasks, steps, 2).contiguous()
        active = (
            None
            if schedule.active is None
            else schedule.active.to(torch.uint8).expand(tasks, steps, 2).contiguous()
        )
        scale = None if schedule.scale is None else schedule.scale.detach().to(self.dtype).contiguous()
        kind = None if len(self.optimisers) == 1 else updates.kind.to(torch.uint8).contiguous()
        number = None if updates.number is None else updates.number.to(torch.int32)
        alive = {"rate": rate, "active": active, "scale": scale, "kind": kind, "number": number}
        return {name: _address(value) for name, value in alive.items()}, tuple(alive.values())


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else int(tensor.data_ptr())


def _dense_inside(tensor: Tensor, leading: int) -> Tensor:
    """`tensor` itself where its trailing dimensions are dense (leading strides may be anything, also 0), else a copy."""
    expected = 1
    for size, stride in zip(
        reversed(tensor.shape[leading:]), reversed(tensor.stride()[leading:]), strict=True
    ):
        if size > 1 and stride != expected:
            return tensor.contiguous()
        expected *= size
    return tensor
