"""The oracle: the mathematics written down once more, as plainly as it can be, on the user's own modules with ``torch.func``.

It shares nothing with the compiled engines but the contract. float64 by default; with float32 it is "torch's own float32", the
error that other engines are measured against. Nothing is detached: each player's gradient is a gradient with respect to that
player's parameters, by argument, so every cross term is there when ``vjp`` goes through the inner steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import grad_and_value, vjp, vmap

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
from pymgan.meta_gradient import compose
from pymgan.noise import normals
from pymgan.reference_augment import Disturbance, disturb, draw
from pymgan.reference_layers import forward
from pymgan.reference_losses import (
    deviation,
    discriminator_loss,
    energy,
    generator_loss,
    gradient_penalty,
)
from pymgan.reference_optimisers import MOMENTS, direction
from pymgan.reference_spectral import SpectralNorms, Vectors
from pymgan.task_sum import reduce_tasks

if TYPE_CHECKING:
    from pymgan.plan import Plan

__all__ = ["ReferenceEngine"]


class _Scores(NamedTuple):
    """Of one batch: what the discriminator says."""

    fake: Tensor
    real: Tensor


class _Step(NamedTuple):
    """What one inner step gives beside the new parameters, [T] each."""

    loss_g: Tensor
    loss_d: Tensor
    norm_g: Tensor
    norm_d: Tensor
    fake_mean: Tensor
    fake_std: Tensor
    real_mean: Tensor
    real_std: Tensor


@dataclass
class _ReferenceSaved(Saved):
    tasks: int
    steps: int
    pull: Callable[[tuple[Tensor, Tensor]], tuple[Tensor, Tensor, Tensor, Tensor]]
    valid: Tensor


class ReferenceEngine:
    """The engine "reference": slow, exact, without a lowering. See :class:`~pymgan.contract.Engine`."""

    name = "reference"

    def __init__(
        self,
        gan: GAN,
        *,
        fakes: int = 8,
        reals: int = 8,
        play: str = "simultaneous",
        optimisers: tuple[str, ...] = ("sgd",),
        momentum: float = 0.9,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        dtype: torch.dtype = torch.float64,
        device: str | torch.device = "cpu",
    ) -> None:
        self.gan = gan
        self.fakes, self.reals, self.play = fakes, reals, play
        self.optimisers, self.momentum, self.betas, self.eps = optimisers, momentum, betas, eps
        self.moments = max(MOMENTS[kind] for kind in optimisers)
        self.dtype, self.device, self.threads = dtype, torch.device(device), torch.get_num_threads()
        self.spectral = SpectralNorms(gan.discriminator)
        self.latent = gan.latent
        self.generator_parameters = sum(p.numel() for p in gan.generator.parameters())
        self.parameters = self.generator_parameters + sum(p.numel() for p in gan.discriminator.parameters())
        self.sample = self._sample_shape()

    @cached_property
    def plan(self) -> Plan:
        """Made on demand: the oracle itself has no use for it."""
        from pymgan.plan import compile_plan

        return compile_plan(self.gan)

    def _sample_shape(self) -> tuple[int, ...]:
        with torch.no_grad():
            phi = torch.zeros(self.parameters, dtype=self.dtype, device=self.device)
            z = torch.zeros(2, *self.latent, dtype=self.dtype, device=self.device)
            sample = self._generate(phi[: self.generator_parameters], z)
            norms = self._iterate(0, phi[None], self.initial_state(1).spectral)
            try:
                scores = self._score(
                    phi[self.generator_parameters :], Vectors(*(n[0] for n in norms)), sample
                )
            except RuntimeError as error:
                shape = list(sample.shape[1:])
                raise ValueError(
                    f"[reference] expected the generator's output {shape} to be the discriminator's input: {error}"
                ) from error
        if scores.numel() != 2:
            raise ValueError(f"[reference] expected one score for each sample, got {list(scores.shape[1:])}")
        self.gan.check_sample(tuple(sample.shape[1:]))
        return tuple(sample.shape[1:])

    # ---- one task ----

    @staticmethod
    def _named(module: nn.Module, theta: Tensor) -> dict[str, Tensor]:
        """The parameters of a module as views of its flat vector."""
        named, at = {}, 0
        for name, parameter in module.named_parameters():
            named[name] = theta[at : at + parameter.numel()].view(parameter.shape)
            at += parameter.numel()
        return named

    def _generate(self, theta_g: Tensor, z: Tensor) -> Tensor:
        return forward(self.gan.generator, self._named(self.gan.generator, theta_g), z)

    def _iterate(self, step: int, phi: Tensor, u: Tensor) -> Vectors:
        """What D's spectral norms have in a step (-1: in a new state): constants, of phi [T, P] and of u before it [T, U]."""

        def one(theta_d: Tensor, u: Tensor) -> Vectors:
            return self.spectral.iterate(self._named(self.gan.discriminator, theta_d), u, first=step < 0)

        vectors: Vectors = vmap(one)(phi.detach()[:, self.generator_parameters :], u)
        return vectors

    def _score(self, theta_d: Tensor, norms: Vectors, x: Tensor) -> Tensor:
        named = self.spectral.used(self._named(self.gan.discriminator, theta_d), norms)
        return forward(self.spectral.module, named, x)

    def _given(self, theta_g: Tensor, z: Tensor, real: Tensor, numbers: Disturbance) -> Tensor:
        """What D is given: of G's samples, then of the real ones."""
        both = torch.cat((self._generate(theta_g, z), real))
        return disturb(self.gan, both, len(z), numbers)

    def _scores(
        self, theta_g: Tensor, theta_d: Tensor, norms: Vectors, z: Tensor, real: Tensor, numbers: Disturbance
    ) -> _Scores:
        both = self._given(theta_g, z, real, numbers)
        scores = self._score(theta_d, norms, both).reshape(-1)
        return _Scores(scores[: len(z)], scores[len(z) :])

    def _loss_g(
        self, theta_g: Tensor, theta_d: Tensor, norms: Vectors, z: Tensor, real: Tensor, numbers: Disturbance
    ) -> Tensor:
        return generator_loss(self.gan.loss, *self._scores(theta_g, theta_d, norms, z, real, numbers))

    def _loss_d(
        self,
        theta_g: Tensor,
        theta_d: Tensor,
        norms: Vectors,
        z: Tensor,
        real: Tensor,
        numbers: Disturbance,
        u: Tensor,
        strength: Tensor,
    ) -> tuple[Tensor, _Scores]:
        scores = self._scores(theta_g, theta_d, norms, z, real, numbers)
        loss = discriminator_loss(self.gan.loss, self.gan.label_smoothing, *scores)
        if self.gan.penalty is not None:
            given = self._given(theta_g, z, real, numbers)
            points = given[: len(z)], given[len(z) :], u
            of_score = gradient_penalty(
                self.gan.penalty, lambda x: self._score(theta_d, norms, x).sum(), *points
            )
            loss = loss + strength * of_score
        return loss, scores

    def _direction(
        self, kind: str, gradient: Tensor, moments: Sequence[Tensor], number: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """What an update subtracts but for its rate, and the moments after it."""
        return direction(
            kind, gradient, moments, number, momentum=self.momentum, betas=self.betas, eps=self.eps
        )

    def _half_step(self, theta: Tensor, by: Tensor) -> Tensor:
        return theta - by

    def _step(
        self,
        phi: Tensor,
        moments: Tensor,
        rate: Tensor,
        scale: Tensor,
        active: Tensor,
        kind: Tensor,
        number: Tensor,
        norms: Vectors,
        z: Tensor,
        real: Tensor,
        numbers: Disturbance,
        u: Tensor,
        strength: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, _Step]:
        """One inner step of one task: (phi', moments', whether everything in it was finite, trace)."""
        split = self.generator_parameters
        halves = {0: slice(0, split), 1: slice(split, None)}
        g, d = phi[halves[0]], phi[halves[1]]
        vectors = [moments[m * len(phi) : (m + 1) * len(phi)] for m in range(self.moments)]

        def update(player: int, theta: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
            half, moves = halves[player], active[player]
            before = [vector[half] for vector in vectors]
            moved_by, after = gradient, before
            for index, name in enumerate(self.optimisers):
                mine = kind == index
                # Another kind's moments need not be squares; a root of them would be NaN, and so would 0 times its derivative.
                number_of_it = torch.where(mine, number[player], 1)
                own, own_after = self._direction(name, gradient, before, number_of_it)
                moved_by = torch.where(mine, own, moved_by)
                after = [torch.where(mine, new, old) for new, old in zip(own_after, after, strict=True)]
            moved = torch.where(moves, theta - rate[player] * scale[half] * moved_by, theta)
            kept = [torch.where(moves, new, old) for new, old in zip(after, before, strict=True)]
            return moved, torch.stack(kept) if kept else theta.new_zeros(0, len(theta))

        def gradient_g(g: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
            gradient, loss = grad_and_value(self._loss_g, argnums=0)(g, d, norms, z, real, numbers)
            return gradient, loss

        def gradient_d(g: Tensor, d: Tensor) -> tuple[Tensor, tuple[Tensor, _Scores]]:
            gradient, value = grad_and_value(self._loss_d, argnums=1, has_aux=True)(
                g, d, norms, z, real, numbers, u, strength
            )
            return gradient, value

        extragradient = "extragradient" in self.optimisers
        twice = kind == (self.optimisers.index("extragradient") if extragradient else -1)

        def ahead(player: int, theta: Tensor, gradient: Tensor) -> Tensor:
            """Extragradient's half point; everyone else stays, where derivatives are as they were."""
            moved = self._half_step(theta, rate[player] * scale[halves[player]] * gradient)
            return torch.where(active[player] & twice, moved, theta)

        def is_finite(*numbers: Tensor) -> Tensor:
            return torch.stack([torch.isfinite(x).all() for x in numbers]).all()

        grad_d, (loss_d, scores) = gradient_d(g, d)
        move_d, finite_d = grad_d, is_finite(loss_d, grad_d)
        if self.play == "simultaneous":
            grad_g, loss_g = gradient_g(g, d)
            move_g, finite_g = grad_g, is_finite(loss_g, grad_g)
            if extragradient:
                half_g, half_d = ahead(0, g, grad_g), ahead(1, d, grad_d)
                move_g, half_loss_g = gradient_g(half_g, half_d)
                move_d, (half_loss_d, _) = gradient_d(half_g, half_d)
                finite_g = finite_g & is_finite(half_g, half_loss_g, move_g)
                finite_d = finite_d & is_finite(half_d, half_loss_d, move_d)
            new_d, moments_d = update(1, d, move_d)
        else:
            if extragradient:
                half_d = ahead(1, d, grad_d)
                move_d, (half_loss_d, _) = gradient_d(g, half_d)
                finite_d = finite_d & is_finite(half_d, half_loss_d, move_d)
            new_d, moments_d = update(1, d, move_d)
            grad_g, loss_g = gradient_g(g, new_d)
            move_g, finite_g = grad_g, is_finite(loss_g, grad_g)
            if extragradient:
                half_g = ahead(0, g, grad_g)
                move_g, half_loss_g = gradient_g(half_g, new_d)
                finite_g = finite_g & is_finite(half_g, half_loss_g, move_g)
        new_g, moments_g = update(0, g, move_g)

        new_phi = torch.cat((new_g, new_d))
        new_moments = torch.cat((moments_g, moments_d), dim=1).flatten()
        finite = (
            (finite_g | ~active[0])
            & (finite_d | ~active[1])
            & torch.isfinite(new_phi).all()
            & torch.isfinite(new_moments).all()
        )
        trace = _Step(
            loss_g,
            loss_d,
            torch.linalg.vector_norm(grad_g),
            torch.linalg.vector_norm(grad_d),
            scores.fake.mean(),
            deviation(scores.fake),
            scores.real.mean(),
            deviation(scores.real),
        )
        return new_phi, new_moments, finite, trace

    # ---- the contract ----

    def initial_state(self, tasks: int, phi: Tensor | None = None) -> State:
        """Moments and counts of zero and the modules' u, settled or not; see :meth:`pymgan.contract.Engine.initial_state`."""
        width = self.moments * self.parameters
        moments = torch.zeros(tasks, width, dtype=self.dtype, device=self.device)
        none = torch.zeros(tasks, 2, dtype=torch.int64)
        norms = self.spectral.u.to(self.device, self.dtype).repeat(tasks, 1)
        if phi is not None:
            norms = self._iterate(-1, phi.expand(tasks, -1), norms).u
        return State(moments, torch.zeros(tasks, dtype=torch.int64), none, none.clone(), norms)

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
        state = self.initial_state(tasks, phi) if state is None else state
        active = (
            torch.ones(2, dtype=torch.bool, device=self.device)
            if schedule.active is None
            else schedule.active
        )
        active = active.expand(tasks, steps, 2)
        scale = torch.ones(self.parameters) if schedule.scale is None else schedule.scale
        noise = self._drawn(rng, state.count, steps) if data.noise is None else data.noise
        batches = [self._real(data, (slice(None), k)) for k in range(steps)]
        kind = torch.as_tensor(schedule.kind).expand(tasks, steps)
        mixes = torch.stack([self._mix(rng, [int(n) + k for n in state.count]) for k in range(steps)], 1)
        disturbed = [self._disturbance(rng, [int(n) + k for n in state.count]) for k in range(steps)]
        every = self.gan.penalty.every if self.gan.penalty is not None else 1
        step = vmap(self._step)

        def play(
            phi: Tensor, moments: Tensor, rate: Tensor, scale: Tensor
        ) -> tuple[tuple[Tensor, Tensor], tuple[list[_Step], Tensor, tuple[Tensor, ...]]]:
            spectral = state.spectral
            valid = torch.ones(tasks, dtype=torch.bool, device=self.device)
            done = torch.zeros(tasks, dtype=torch.int64)
            updates, last = state.updates, state.kind
            traces = []
            for k in range(steps):
                number = torch.where(last == kind[:, k, None], updates, 0) + 1
                strength = torch.where((state.count + k) % every == 0, every, 0).to(phi.dtype)
                norms = self._iterate(k, phi, spectral)
                new_phi, new_moments, finite, trace = step(
                    phi,
                    moments,
                    rate[:, k],
                    scale,
                    active[:, k],
                    kind[:, k],
                    number,
                    norms,
                    noise[:, k],
                    batches[k],
                    disturbed[k],
                    mixes[:, k],
                    strength,
                )
                valid = valid & finite
                if self.moments:
                    moves = active[:, k] & valid[:, None]
                    updates = torch.where(moves, number, updates)
                    last = torch.where(moves, kind[:, k, None], last)
                phi = torch.where(valid[:, None], new_phi, phi)
                moments = torch.where(valid[:, None], new_moments, moments)
                spectral = torch.where(valid[:, None], norms.u, spectral)
                done = done + valid.cpu()
                traces.append(trace)
            return (phi, moments), (traces, valid, (state.count + done, updates, last, spectral))

        inputs = (
            phi.detach().expand(tasks, -1),
            state.moments.detach(),
            schedule.rate.detach().to(self.dtype).expand(tasks, steps, 2),
            scale.detach().to(self.device, self.dtype).expand(tasks, -1),
        )
        saved = None
        if keep:
            (phi_k, moments_k), pull, (traces, valid, counts) = vjp(play, *inputs, has_aux=True)  # type: ignore[misc]
            saved = _ReferenceSaved(tasks, steps, pull, valid)
        else:
            with torch.no_grad():
                (phi_k, moments_k), (traces, valid, counts) = play(*inputs)
        columns = {
            name: torch.stack([getattr(trace, name) for trace in traces], dim=1) for name in _Step._fields
        }
        return Adapted(phi_k, State(moments_k, *counts), Trace(**columns, valid=valid), saved)

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
        """Pulls cotangents of phi_K back to phi_0; see :meth:`pymgan.contract.Engine.pullback`."""
        kept = check_saved(saved, _ReferenceSaved)
        v, v_state, keeps, supports, bare = check_pullback(
            self,
            kept.tasks,
            cotangents,
            state_cotangents=state_cotangents,
            keep=keep,
            support=support,
            weight=weight,
        )
        if v_state is None:
            v_state = v.new_zeros(*v.shape[:-1], self.moments * self.parameters)
        pulled = [
            kept.pull((self._half(one, half), self._half(one_state, half)))
            for one, one_state, half in zip(v, v_state, supports, strict=True)
        ]
        zero = torch.zeros((), dtype=self.dtype, device=self.device)
        v0, state_v0, d_rate, d_scale = (
            torch.stack([torch.where(kept.valid.view(-1, *[1] * (x.ndim - 1)), x, zero) for x in column])
            for column in zip(*pulled, strict=True)
        )
        v0 = torch.stack([self._half(one, half) for one, half in zip(v0, keeps, strict=True)])
        valid: Tensor = kept.valid
        moments: Tensor | None = state_v0 if self.moments else None
        rate: Tensor | None = d_rate if rates else None
        scale: Tensor | None = d_scale if rates else None
        if weight is not None:
            valid, v0, moments, scale = reduce_tasks(valid, weight, v0, moments, scale)
        if not bare:
            return Pulled(v0, moments, rate, scale, valid)
        moments, rate, scale = (None if r is None else r[0] for r in (moments, rate, scale))
        return Pulled(v0[0], moments, rate, scale, valid)

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

    def gradients(
        self, phi: Tensor, data: Data, rng: Rng, *, full: bool = False, state: State | None = None
    ) -> Gradients:
        """Losses and gradients on one batch; see :meth:`pymgan.contract.Engine.gradients`."""
        tasks = check_gradients(self, phi, data, rng, state)
        state = self.initial_state(tasks, phi) if state is None else state
        noise = (
            self._drawn(rng, torch.zeros(tasks, dtype=torch.int64), 1)[:, 0]
            if data.noise is None
            else data.noise
        )
        split = self.generator_parameters

        every = torch.tensor(1.0 if self.gan.penalty is None else self.gan.penalty.every, dtype=self.dtype)

        def one(
            phi: Tensor, norms: Vectors, z: Tensor, real: Tensor, numbers: Disturbance, u: Tensor
        ) -> tuple[Tensor, Tensor, Tensor]:
            def loss_g(phi: Tensor) -> Tensor:
                return self._loss_g(phi[:split], phi[split:], norms, z, real, numbers)

            def loss_d(phi: Tensor) -> Tensor:
                return self._loss_d(phi[:split], phi[split:], norms, z, real, numbers, u, every)[0]

            grad_g, value_g = grad_and_value(loss_g)(phi)
            grad_d, value_d = grad_and_value(loss_d)(phi)
            if full:
                return value_g, value_d, torch.stack((grad_g, grad_d))
            return value_g, value_d, torch.cat((grad_g[:split], grad_d[split:]))

        phi = phi.detach().expand(tasks, -1)
        loss_g, loss_d, gradient = vmap(one)(
            phi,
            self._iterate(0, phi, state.spectral),
            noise,
            self._real(data, (slice(None),)),
            self._disturbance(rng, [0] * tasks),
            self._mix(rng, [0] * tasks),
        )
        return Gradients(
            loss_g.detach(), loss_d.detach(), gradient.movedim(1, 0).detach() if full else gradient.detach()
        )

    def noise(self, rng: Rng, tasks: int, n: int, *, step: int = 0, stream: int = 0) -> Tensor:
        """Standard normals [T, n, *latent]; see :meth:`pymgan.contract.Engine.noise`."""
        check_noise(rng, tasks, n, step, stream)
        return self._normals(rng, [step] * tasks, n, stream)

    def generate(self, phi: Tensor, z: Tensor) -> Tensor:
        """Samples [T, B, *sample]; see :meth:`pymgan.contract.Engine.generate`."""
        tasks, _ = check_generate(self, phi, z)
        with torch.no_grad():
            return self._samples(phi.detach().expand(tasks, -1), z)

    def generate_vjp(self, phi: Tensor, z: Tensor, cotangent: Tensor) -> Tensor:
        """Pull-back of samples' cotangents to phi [T, P]; see :meth:`pymgan.contract.Engine.generate_vjp`."""
        tasks, _ = check_generate(self, phi, z, cotangent)
        pull = vjp(lambda phi: self._samples(phi, z), phi.detach().expand(tasks, -1))[1]
        v: Tensor = pull(cotangent.detach())[0]
        return v.detach()

    def distance(self, kind: str, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """Energy distance [T] and its cotangent; see :meth:`pymgan.contract.Engine.distance`."""
        check_distance(kind, a, b)
        tasks = zip(a.detach().flatten(2), b.detach().flatten(2), strict=True)
        pairs = [grad_and_value(energy)(x, y) for x, y in tasks]
        cotangent = torch.stack([pair[0] for pair in pairs]).view(a.shape)
        return torch.stack([pair[1] for pair in pairs]).to(torch.float64), cotangent

    # ---- helpers ----

    def _samples(self, phi: Tensor, z: Tensor) -> Tensor:
        samples: Tensor = vmap(self._generate)(phi[:, : self.generator_parameters], z)
        return samples

    def _half(self, v: Tensor, half: str) -> Tensor:
        """`v` [T, P], or one of moments, with the other half set to zero."""
        result = v.clone()
        vectors = result.view(*result.shape[:-1], -1, self.parameters)
        if half == "G":
            vectors[..., self.generator_parameters :] = 0
        elif half == "D":
            vectors[..., : self.generator_parameters] = 0
        return result

    def _real(self, data: Data, at: tuple[slice | int, ...]) -> Tensor:
        """The real batch [T, B, *sample] of one inner step."""
        return data.real.detach()[at] if data.indices is None else data.real.detach()[data.indices[at].long()]

    def _drawn(self, rng: Rng, count: Tensor, steps: int) -> Tensor:
        """Noise [T, K, fakes, *latent] of the inner steps that follow `count`."""
        draws = [self._normals(rng, [int(n) + k for n in count], self.fakes, 0) for k in range(steps)]
        return torch.stack(draws, dim=1)

    def _disturbance(self, rng: Rng, steps: Sequence[int]) -> Disturbance:
        """What changes the samples of each task before D is given them, at its own step."""
        numbers = draw(self.gan, rng, steps, self.fakes, self.reals, self.sample)
        return Disturbance(*(each.to(self.device) for each in numbers))

    def _mix(self, rng: Rng, steps: Sequence[int]) -> Tensor:
        """Uniform numbers [T, reals]: where normals lie in their distribution."""
        u: Tensor = torch.special.ndtr(_drawn(rng, steps, self.reals, 2**16 - 1))
        return u.to(self.device, self.dtype)

    def _normals(self, rng: Rng, steps: Sequence[int], n: int, stream: int) -> Tensor:
        z = _drawn(rng, steps, n * math.prod(self.latent), stream)
        return z.to(self.device, self.dtype).view(len(z), n, *self.latent)


def _drawn(rng: Rng, steps: Sequence[int], size: int, stream: int) -> Tensor:
    """Standard normals [T, size], float64."""
    tasks = zip(rng.tasks.tolist(), steps, strict=True)
    return torch.from_numpy(np.stack([normals(rng.seed, task, step, stream, size) for task, step in tasks]))
