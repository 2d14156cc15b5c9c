"""Unrolled GANs (Metz et al. 2017, arXiv 1611.02163): the generator descends a loss at the discriminator K steps ahead.

G's gradient is the total one through K steps of D, by gradient descent or Adam, in which theta_G stands still:

    d/dtheta_G  L(theta_G, theta_D^K(theta_G, theta_D)).

That is the engine's inner loop with one active player, and its pull-back: v_K = dL / d(theta_G, theta_D) at phi_K goes in, and
because theta_G passes through the K steps as it is, G's half of v_0 is the direct part plus what flows through D's steps.

Dimensions: T GANs, P parameters (P_G of the generator, P_D of the discriminator), B samples of a batch, K unrolled steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .contract import Data, Rng, Schedule, State
from .engine import compile as compile_engine
from .gan import GAN
from .threads import one_torch_thread

if TYPE_CHECKING:
    from .contract import Engine

__all__ = ["Unrolled", "UnrolledGradient", "unrolled_gradient"]

OBJECTIVES = ("game", "saddle")
INNER = ("adam", "sgd")


@dataclass(frozen=True)
class UnrolledGradient:
    """Both players' gradients, of T GANs.

    Attributes:
        generator: [T, P_G], the total derivative of `loss_g` through D's K steps.
        discriminator: [T, P_D], the ordinary gradient of `loss_d`.
        loss_g: [T], what the generator descends, at (theta_G, theta_D^K).
        loss_d: [T], L_D at (theta_G, theta_D).
        valid: bool [T]: all of it is finite.
    """

    generator: Tensor
    discriminator: Tensor
    loss_g: Tensor
    loss_d: Tensor
    valid: Tensor


def unrolled_gradient(
    engine: Engine,
    phi: Tensor,
    real: Tensor,
    noise: Tensor,
    *,
    steps: int,
    rate: float = 1e-4,
    objective: str = "game",
    inner: Data | None = None,
    state: State | None = None,
) -> UnrolledGradient:
    """The gradients of an unrolled GAN, for T GANs in one call. Changes nothing; no autograd.

    Args:
        engine: from `pymgan.compile`; D's K steps are those of its first optimiser.
        phi: [T, P] or [P], both players' parameters as `GAN.parameters_vector` lays them out.
        real: [T, reals, *sample], the minibatch that both gradients are taken on.
        noise: z [T, fakes, *latent], likewise.
        steps: K; 0 gives both players' ordinary gradients.
        rate: of D's K steps.
        objective: "game", G descends the GAN's own L_G; or "saddle", G descends -L_D, all of it: its term of real samples
            depends on G too, through theta_D^K. The code of the paper's authors is of the second kind.
        inner: what D's K steps see, real [T, K, reals, *sample] and noise [T, K, fakes, *latent]. None: the same minibatch in
            each step, as in the code of the paper's authors.
        state: of D's optimiser before the first of the K steps; None is one that starts from nothing.

    Raises:
        ValueError, TypeError: a shape, a value or a type is not as above.
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
        raise ValueError(f"[unrolled] steps: expected a whole number from 0, got {steps!r}")
    _number("rate", rate)
    _one_of("objective", objective, OBJECTIVES)
    expected = (engine.reals, *engine.sample)
    if real.ndim != 1 + len(expected) or tuple(real.shape[1:]) != expected or not len(real):
        raise ValueError(
            f"[unrolled] real: expected [T, {', '.join(map(str, expected))}], got {list(real.shape)}"
        )
    tasks, split = len(real), engine.generator_parameters
    rng = Rng(seed=0, tasks=torch.arange(tasks, dtype=torch.int64))
    batch = Data(real, noise=noise)
    # A row for each loss only where a half is wanted that is not the player's own.
    full = steps == 0 and objective == "saddle"
    here = engine.gradients(phi, batch, rng, full=full)
    if steps == 0:
        loss_g = here.loss_g if objective == "game" else -here.loss_d
        generator = -here.gradient[1, :, :split] if full else here.gradient[:, :split]
        done = torch.ones(tasks, dtype=torch.bool, device=phi.device)
    else:
        if inner is None:
            inner = Data(_repeat(real, steps), noise=_repeat(noise, steps))
        elif inner.noise is None:
            raise ValueError(
                f"[unrolled] inner.noise: expected z [{tasks}, {steps}, {engine.fakes}, ...], got None"
            )
        rates = torch.tensor([0.0, rate], dtype=torch.float64, device=engine.device)
        one = torch.tensor([False, True], device=engine.device)
        ahead = engine.adapt(
            phi, inner, Schedule(rate=rates, active=one), rng, state=state, keep=True
        )  # theta_D^K
        if ahead.trace.loss_d.shape[1] != steps:
            raise ValueError(
                f"[unrolled] inner: expected {steps} steps, as many as `steps`, got {ahead.trace.loss_d.shape[1]}"
            )
        there = engine.gradients(ahead.phi, batch, rng, full=True)
        loss_g = there.loss_g if objective == "game" else -there.loss_d
        v = there.gradient[0] if objective == "game" else -there.gradient[1]
        if ahead.saved is None:
            raise RuntimeError(f"[unrolled] expected the {engine.name} engine to keep its steps, got none")
        pulled = engine.pullback(ahead.saved, v, keep="G")
        generator, done = pulled.v0[:, :split], ahead.trace.valid & pulled.valid
    discriminator = here.gradient[-1] if full else here.gradient
    discriminator = discriminator[:, split:]
    finite = [
        torch.isfinite(x).reshape(tasks, -1).all(1) for x in (generator, discriminator, loss_g, here.loss_d)
    ]
    valid = torch.stack([done, *finite]).all(0)
    return UnrolledGradient(generator, discriminator, loss_g, here.loss_d, valid)


class Unrolled:
    """Trains T independent GANs at once, the generators by their unrolled gradients.

    In each step both players move from the same point, each by its own torch.optim.Adam: G by the unrolled gradient, D by its
    ordinary one. With `inner="adam"` the K steps that G looks ahead are those that D's own Adam would take on this minibatch,
    from its present moments; the first of them is the step that D then takes (but for eps, which the engine has inside the
    square root).

    A GAN whose gradients are not finite stays where it is in that step, and does not touch the others.

    Args:
        gan: both networks; their weights are where all T start, if `phi` is not given.
        tasks: T.
        phi: [T, P], a starting point for each.
        steps: K; 0 trains ordinary GANs.
        batch: B, of real and of generated samples.
        rates: of G's and D's Adam; the second is the rate of the K steps, too.
        betas: of both.
        eps: of both.
        inner: "adam" or "sgd", what D's K steps are made of.
        inner_rate: of the K steps, where it is not D's.
        objective: see `unrolled_gradient`.
        dtype, engine, threads: see `pymgan.compile`.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        gan: GAN,
        *,
        tasks: int = 1,
        phi: Tensor | None = None,
        steps: int = 5,
        batch: int = 128,
        rates: tuple[float, float] = (1e-3, 1e-4),
        betas: tuple[float, float] = (0.5, 0.999),
        eps: float = 1e-8,
        inner: str = "adam",
        inner_rate: float | None = None,
        objective: str = "game",
        dtype: torch.dtype = torch.float32,
        engine: str = "auto",
        threads: int | None = None,
    ) -> None:
        for name, value, least in (("tasks", tasks, 1), ("steps", steps, 0), ("batch", batch, 1)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"[unrolled] {name}: expected a whole number from {least}, got {value!r}")
        if not isinstance(rates, Sequence) or len(rates) != 2:
            raise ValueError(f"[unrolled] rates: expected two numbers, of G and D, got {rates!r}")
        for name, rate in (
            ("rates", rates[0]),
            ("rates", rates[1]),
            ("inner_rate", rates[1] if inner_rate is None else inner_rate),
        ):
            _number(name, rate)
        _one_of("inner", inner, INNER)
        _one_of("objective", objective, OBJECTIVES)
        self.engine = compile_engine(
            gan,
            fakes=batch,
            reals=batch,
            optimisers=(inner,),
            betas=betas,
            eps=eps * eps,  # inside the square root
            dtype=dtype,
            engine=engine,
            threads=threads,
        )
        parameters = self.engine.parameters
        if phi is None:
            phi = gan.parameters_vector().expand(tasks, -1)
        if tuple(phi.shape) != (tasks, parameters):
            raise ValueError(f"[unrolled] phi: expected [{tasks}, {parameters}], got {list(phi.shape)}")
        self.steps, self.inner, self.objective = steps, inner, objective
        self.inner_rate = rates[1] if inner_rate is None else inner_rate
        self._phi = phi.detach().to(self.engine.device, dtype, copy=True).contiguous()
        split = self.engine.generator_parameters
        self._halves = (self._phi[:, :split], self._phi[:, split:])  # views, which the optimisers move
        self._adams = [
            torch.optim.Adam([half], lr=rate, betas=betas, eps=eps)
            for half, rate in zip(self._halves, rates, strict=True)
        ]

    @property
    def parameters(self) -> Tensor:
        """[T, P], as they stand: valid until the next step; copy it to keep it."""
        return self._phi

    def step(self, real: Tensor, noise: Tensor, *, inner: Data | None = None) -> UnrolledGradient:
        """One step of every GAN; returns what it followed.

        Args:
            real: [T, B, *sample].
            noise: z [T, B, *latent].
            inner: what D's K steps see; see `unrolled_gradient`.
        """
        with one_torch_thread(self.engine):
            result = self.gradient(real, noise, inner=inner)
            failed = ~result.valid
            before = self._phi[failed]
            for half, adam, gradient in zip(
                self._halves, self._adams, (result.generator, result.discriminator), strict=True
            ):
                half.grad = gradient.masked_fill(failed[:, None], 0.0)
                adam.step()
            self._phi[failed] = before
        return result

    def gradient(self, real: Tensor, noise: Tensor, *, inner: Data | None = None) -> UnrolledGradient:
        """What `step` would follow. Changes nothing."""
        return unrolled_gradient(
            self.engine,
            self._phi,
            real,
            noise,
            steps=self.steps,
            rate=self.inner_rate,
            objective=self.objective,
            inner=inner,
            state=self._state() if self.inner == "adam" and self.steps else None,
        )

    def sample(self, noise: Tensor) -> Tensor:
        """Samples [T, B, *sample] of z [T, B, *latent], any B."""
        return self.engine.generate(self._phi, noise)

    def _state(self) -> State:
        """The engine's Adam where D's own stands."""
        tasks, split = len(self._phi), self.engine.generator_parameters
        state = self.engine.initial_state(tasks)
        if own := self._adams[1].state.get(self._halves[1]):
            for at, name in enumerate(("exp_avg", "exp_avg_sq")):
                state.moments.reshape(tasks, 2, -1)[:, at, split:] = own[name]
            state.updates[:, 1] = int(own["step"])
        return state


def _repeat(batch: Tensor, steps: int) -> Tensor:
    """[T, K, ...] of one batch in all K steps, without a copy."""
    return batch.unsqueeze(1).expand(-1, steps, *batch.shape[1:])


def _number(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise ValueError(f"[unrolled] {name}: expected a finite number from 0, got {value!r}")


def _one_of(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise ValueError(f"[unrolled] {name}: expected one of {', '.join(known)}, got {value!r}")
