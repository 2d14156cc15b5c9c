"""The contract of every engine: what goes in and what comes out. What is asked of it is in ``checks``.

Dimensions: T tasks, K inner steps, P parameters (P_G of them the generator's, which come first), C cotangents, B samples of a
batch. Tensors are on the engine's device and have its dtype unless it is said otherwise. phi is laid out as
``GAN.parameters_vector`` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from torch import Tensor

from pymgan.gan import GAN

if TYPE_CHECKING:
    from pymgan.plan import Plan

__all__ = [
    "DISTANCES",
    "HALVES",
    "OPTIMISERS",
    "STREAMS",
    "TRACE",
    "Adapted",
    "Data",
    "Engine",
    "Gradients",
    "MetaGradient",
    "Objective",
    "Pulled",
    "Rng",
    "Saved",
    "Schedule",
    "State",
    "Trace",
]

HALVES = ("G", "D", "GD")
TRACE = ("loss_g", "loss_d", "norm_g", "norm_d", "fake_mean", "fake_std", "real_mean", "real_std")
"""The columns of a `Trace`, as the engines' buffers order them."""
DISTANCES = ("energy",)
STREAMS = 2**16 - 3
"""Streams of the noise that a caller may name, from 0; those from there on are the engine's own."""
OPTIMISERS = (
    "sgd",
    "normalised",
    "momentum",
    "nesterov",
    "rmsprop",
    "adam",
    "optimistic",
    "extragradient",
)
"""Kinds of inner optimiser; see :func:`pymgan.compile`."""


@dataclass(frozen=True)
class Data:
    """What the discriminator sees as real, and optionally the generator's noise.

    Attributes:
        real: [T, K, B, *sample] with B = engine.reals, any strides in T and K (also 0); the pool [N, *sample] when `indices` is
            given. For ``Engine.gradients``: [T, B, *sample].
        indices: int32 [T, K, B] into the pool ([T, B] for ``gradients``).
        noise: z [T, K, fakes, *latent] ([T, fakes, *latent] for ``gradients``); None draws it from the ``Rng``, stream 0.
    """

    real: Tensor
    indices: Tensor | None = None
    noise: Tensor | None = None


@dataclass(frozen=True)
class Schedule:
    """How the inner optimiser moves.

    Attributes:
        rate: of (G, D), [2], [K, 2] or [T, K, 2]; any floating dtype; finite, at least 0.
        active: bool, [2], [K, 2] or [T, K, 2]: False skips that player's update (its parameters and its state stay).
        scale: [P], a multiplier of the rate for each parameter; any floating dtype; finite.
        kind: of the optimiser, an index into ``engine.optimisers``: a number, or int64 [K] or [T, K].
    """

    rate: Tensor
    active: Tensor | None = None
    scale: Tensor | None = None
    kind: int | Tensor = 0


@dataclass(frozen=True)
class Rng:
    """Names the noise: it depends on (seed, task number, step, stream) alone.

    Attributes:
        seed: in [0, 2^64).
        tasks: int64 [T], global task numbers, at least 0; on the cpu, or on the engine's device.
    """

    seed: int
    tasks: Tensor


@dataclass
class State:
    """What the inner optimiser carries from one call to the next.

    A player's moments belong to one kind of optimiser: in its first update of another kind than its last, as in its first of all,
    the moments before it are zero, whatever stands here. A kind leaves moments alone that it has no use for.

    Attributes:
        moments: [T, engine.moments * P], one vector after the other. Of "momentum" and "nesterov" the velocity, of "optimistic"
            the gradient before, of "rmsprop" the mean square, of "adam" the mean and the mean square.
        count: int64 [T], inner steps done, which is also the step that the noise is drawn for.
        updates: int64 [T, 2], updates of each player that its moments come from; with 0 there are none yet. Adam's bias
            correction counts these, so a step in which the player was not active is not among them.
        kind: int64 [T, 2], of those updates, as in `Schedule`. Neither moves in an engine without moments.
        spectral: [T, U], u of the discriminator's layers under a spectral norm, one after the other. Every step begins with their
            power iterations, at its phi; what it evaluates has these u and v, which derivatives take for constants.
    """

    moments: Tensor
    count: Tensor
    updates: Tensor
    kind: Tensor
    spectral: Tensor


@dataclass
class Trace:
    """What happened in each inner step: [T, K] each, except `valid`. Entries of a player that is not active may be 0.

    Attributes:
        loss_g, loss_d: before the player's update; of "extragradient", as everything here, at its first gradient.
        norm_g, norm_d: Euclidean norm of the player's gradient.
        fake_mean, fake_std, real_mean, real_std: of the scores that the discriminator's update saw (population deviation).
        valid: bool [T]. A task that is not valid stopped before its first non-finite loss, gradient or parameter.
    """

    loss_g: Tensor
    loss_d: Tensor
    norm_g: Tensor
    norm_d: Tensor
    fake_mean: Tensor
    fake_std: Tensor
    real_mean: Tensor
    real_std: Tensor
    valid: Tensor


class Saved:
    """What an engine keeps of ``adapt`` for ``pullback``; private to the engine that made it.

    Attributes:
        tasks: T.
        steps: K.
    """

    tasks: int
    steps: int


@dataclass
class Adapted:
    """Result of ``Engine.adapt``.

    Attributes:
        phi: phi_K [T, P]; of an invalid task the last finite one.
        state: to be handed to the next call.
        trace: see `Trace`.
        saved: for ``pullback``, when ``keep=True``.
    """

    phi: Tensor
    state: State
    trace: Trace
    saved: Saved | None = None


@dataclass
class Pulled:
    """Result of ``Engine.pullback``; without C where the cotangents had none. Zero for invalid tasks.

    Attributes:
        v0: [C, T, P], cotangent of phi_0; the half that `keep` leaves out is zero.
        state_v0: [C, T, engine.moments * P], cotangent of the moments; None in an engine without.
        d_rate: [C, T, K, 2], with ``rates=True``; 0 where the player was not active.
        d_scale: [C, T, P], with ``rates=True``; at scale 1 where the schedule had none.
        valid: bool [T], the tasks that are in the sums, with ``weight``; else those that `adapt` found valid.

    With ``weight``, v0, state_v0 and d_scale are sums over the tasks, without T.
    """

    v0: Tensor
    state_v0: Tensor | None
    d_rate: Tensor | None
    d_scale: Tensor | None
    valid: Tensor


@dataclass(frozen=True)
class Objective:
    """What `Engine.meta_gradient` asks of phi_K on a query set.

    Each player descends the energy distance between G's samples and the query set (if `samples` is not 0), plus its own loss
    on the query set times that loss's weight.

    Attributes:
        query: [T, Q, *sample]. Where a loss has a weight, Q is a multiple of ``engine.reals``, and the loss is the mean over
            such parts.
        samples: that G makes in the energy distance; 0 leaves it out.
        losses: the weights of (L_G, L_D).
        noise: z [T, N, *latent], of which each term takes what it needs from the first row on: `samples`, and ``engine.fakes``
            for each part; N is the larger. None draws it from the ``Rng`` at step K.
        stream: of the noise that is drawn, below `STREAMS`.
    """

    query: Tensor
    samples: int = 32
    losses: tuple[float, float] = (0.0, 0.0)
    noise: Tensor | None = None
    stream: int = 1

    @property
    def plays(self) -> bool:
        """Whether a loss counts."""
        return any(self.losses)

    def parts(self, engine: Engine) -> int:
        """Parts of the query set that a loss is the mean of; 0 where none counts."""
        return self.query.shape[1] // engine.reals if self.plays else 0

    def noise_rows(self, engine: Engine) -> int:
        """N."""
        return max(self.samples, self.parts(engine) * engine.fakes)


@dataclass
class MetaGradient:
    """What `Engine.meta_gradient` returns.

    Attributes:
        gradient: [P], each player's own descent: the mean over the valid tasks, added in their order.
        value: float64 [T], the energy distance, or without it the weighted sum of the losses; NaN for a task whose inner loop
            failed.
        trace: of the inner loop. `trace.valid` is bool [T]: inner steps, value and gradient are finite.
        d_rate: [T, K, 2], d value / d rate, with ``rates=True``.
    """

    gradient: Tensor
    value: Tensor
    trace: Trace
    d_rate: Tensor | None = None


@dataclass
class Gradients:
    """Result of ``Engine.gradients``.

    Attributes:
        loss_g, loss_d: [T].
        gradient: [T, P] = (dL_G / dtheta_G, dL_D / dtheta_D), or with ``full=True`` [2, T, P]: of L_G, of L_D.
    """

    loss_g: Tensor
    loss_d: Tensor
    gradient: Tensor


@runtime_checkable
class Engine(Protocol):
    """An inner loop and its exact pull-back, compiled for one GAN. All engines give the same numbers up to rounding."""

    @property
    def name(self) -> str:
        """Such as "cpu"."""

    @property
    def gan(self) -> GAN:
        """What was compiled."""

    @property
    def plan(self) -> Plan:
        """What the compiler made of it; ``print(engine.plan)`` is a table."""

    @property
    def dtype(self) -> torch.dtype:
        """float32 or float64."""

    @property
    def device(self) -> torch.device:
        """Where tensors live."""

    @property
    def threads(self) -> int:
        """Cores that one call uses."""

    @property
    def parameters(self) -> int:
        """P."""

    @property
    def generator_parameters(self) -> int:
        """P_G."""

    @property
    def latent(self) -> tuple[int, ...]:
        """Shape of one z."""

    @property
    def sample(self) -> tuple[int, ...]:
        """Shape of one sample."""

    @property
    def fakes(self) -> int:
        """Generated samples in an inner step's batch."""

    @property
    def reals(self) -> int:
        """Real samples in an inner step's batch."""

    @property
    def optimisers(self) -> tuple[str, ...]:
        """The kinds that a schedule may name, of `OPTIMISERS`."""

    @property
    def moments(self) -> int:
        """Vectors [P] that a state has room for: as many as the largest of the optimisers needs."""

    def initial_state(self, tasks: int, phi: Tensor | None = None) -> State:
        """Moments and counts of zero, u as the modules have them, or with phi [T, P] (or [P]) after 15 power iterations there."""

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
        """Runs K inner steps on every task from phi [T, P] (or [P], shared) and a state, by default the initial one at phi."""

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
        """Pulls cotangents of phi_K, [C, T, P] or [T, P], back through the K steps.

        Args:
            saved: of an `adapt` with ``keep=True``.
            cotangents: v_K.
            state_cotangents: the same for the moments, [C, T, engine.moments * P] or without C; None is zero.
            keep: "G", "D" or "GD" (default), one for all cotangents or one for each: the half of v0 that is wanted; the
                other comes back as zeros.
            support: likewise the half of v_K, and of the moments' cotangent, that can be nonzero; the other is taken to be zero
                without a look.
            rates: whether the derivatives with respect to rate and scale are wanted too.
            weight: [T]. Then v0, state_v0 and d_scale are summed over the tasks with these weights, in the order of the tasks.
                A task that is not valid, or whose v0 is not finite, is left out; `Pulled.valid` says which are in.
        """

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
        """`adapt` from a state of zero, the objective and `pullback` in one, for a mean over tasks.

        Args:
            phi: [P] (shared) or [T, P].
            data, schedule, rng: as in `adapt`.
            objective: of phi_K.
            order: 2, or 1: v_0 is taken to be v_K.
            rates: whether d_rate is wanted too; of the energy distance alone, at order 2.
        """

    def gradients(
        self, phi: Tensor, data: Data, rng: Rng, *, full: bool = False, state: State | None = None
    ) -> Gradients:
        """Losses and gradients on one batch (no axis K in `data`; noise of step 0). Of the state, only `spectral` is read."""

    def noise(self, rng: Rng, tasks: int, n: int, *, step: int = 0, stream: int = 0) -> Tensor:
        """Standard normal z [T, n, *latent] of (seed, task, step, stream); streams are below `STREAMS`."""

    def generate(self, phi: Tensor, z: Tensor) -> Tensor:
        """Samples [T, B, *sample] of z [T, B, *latent] at phi [T, P]."""

    def generate_vjp(self, phi: Tensor, z: Tensor, cotangent: Tensor) -> Tensor:
        """The pull-back of a cotangent [T, B, *sample] of `generate` to phi, [T, P]; the discriminator's part is zero."""

    def distance(self, kind: str, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """A distance [T], float64, between samples a [T, B, *] and b [T, B2, *], and its cotangent with respect to a.

        "energy": 2 E|a - b| - E|a - a'| - E|b - b'|, unbiased (pairs of a sample with itself are left out; a single sample has
        no inner distance), |d| = sqrt(sum d^2 + 1e-12).
        """
