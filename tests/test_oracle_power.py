"""The battery's own power: engines that are wrong in ways that have happened must fail it, and a right one must not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pymgan.contract import OPTIMISERS, Adapted, Data, Pulled, Rng, Saved, Schedule, State
from pymgan.gan import GAN, LOSSES
from pymgan.plan import LAYERS
from pymgan.reference import ReferenceEngine, _Scores
from pymgan.reference_augment import Disturbance
from pymgan.reference_losses import discriminator_loss
from pymgan.reference_spectral import Vectors
from tests.battery import Row, compare, draw_errors, measure, rms
from tests.oracle_cases import Case, cases, draw, make_reference, reference

F32 = torch.float32
BY_NAME = {case.name: case for case in cases()}


def find(**wanted: Any) -> Case:
    """The first random case with these attributes; callables are predicates."""
    for case in cases():
        if all(
            want(getattr(case, k)) if callable(want) else getattr(case, k) == want
            for k, want in wanted.items()
        ):
            return case
    raise AssertionError(f"no case with {wanted}")


def failures(engine: type[ReferenceEngine], case: Case) -> list[Row]:
    def make(case: Case) -> ReferenceEngine:
        return engine(case.gan, **case.inner_loop(), dtype=F32)

    return [row for row in compare(make, case) if not row.ok]


class DetachedFake(ReferenceEngine):
    """``G(z).detach()`` in L_D: the gradient is right, its derivative with respect to G is lost."""

    def _loss_d(
        self,
        theta_g: Tensor,
        theta_d: Tensor,
        norms: Vectors,
        z: Tensor,
        real: Tensor,
        numbers: Disturbance,
        *penalised: Tensor,
    ) -> tuple[Tensor, _Scores]:
        return super()._loss_d(theta_g.detach(), theta_d, norms, z, real, numbers, *penalised)


class WrongPoint(ReferenceEngine):
    """Alternating play pulled back as if G had moved at (G_k, D_k) and D's step did not depend on it."""

    def _loss_g(
        self, theta_g: Tensor, theta_d: Tensor, norms: Vectors, z: Tensor, real: Tensor, numbers: Disturbance
    ) -> Tensor:
        return super()._loss_g(theta_g, theta_d.detach(), norms, z, real, numbers)


class FirstOrder(ReferenceEngine):
    """Second-order terms left out."""

    def pullback(self, saved: Saved, cotangents: Tensor, **options: Any) -> Pulled:
        keep = options.get("keep") or "GD"
        halves = [self._half(v, half) for v, half in zip(torch.nan_to_num(cotangents), keep, strict=False)]
        v0 = torch.stack(halves) if cotangents.ndim == 3 else cotangents
        return replace(super().pullback(saved, cotangents, **options), v0=v0)


class NoSmoothing(ReferenceEngine):
    """Label smoothing forgotten on the real samples."""

    def _loss_d(
        self,
        theta_g: Tensor,
        theta_d: Tensor,
        norms: Vectors,
        z: Tensor,
        real: Tensor,
        numbers: Disturbance,
        *penalised: Tensor,
    ) -> tuple[Tensor, _Scores]:
        scores = self._scores(theta_g, theta_d, norms, z, real, numbers)
        return discriminator_loss(self.gan.loss, 0.0, *scores), scores


class OneMean(ReferenceEngine):
    """One mean over fakes and reals together in L_D."""

    def _loss_d(
        self,
        theta_g: Tensor,
        theta_d: Tensor,
        norms: Vectors,
        z: Tensor,
        real: Tensor,
        numbers: Disturbance,
        *penalised: Tensor,
    ) -> tuple[Tensor, _Scores]:
        loss, scores = super()._loss_d(theta_g, theta_d, norms, z, real, numbers, *penalised)
        return loss * (2 * len(z) / (len(z) + len(real))), scores


class ForgottenMoments(ReferenceEngine):
    """The moments' cotangent is dropped."""

    def pullback(self, saved: Saved, cotangents: Tensor, **options: Any) -> Pulled:
        return super().pullback(saved, cotangents, **{**options, "state_cotangents": None})


class Dampened(ReferenceEngine):
    """m' = mu m + (1 - mu) F."""

    def adapt(self, phi: Tensor, data: Data, schedule: Schedule, rng: Rng, **options: Any) -> Adapted:
        slower = replace(schedule, rate=schedule.rate * (1 - self.momentum))
        return super().adapt(phi, data, slower, rng, **options)


class UncorrectedBias(ReferenceEngine):
    """Adam's moments as they are, after the first update."""

    def _direction(
        self, kind: str, gradient: Tensor, moments: Sequence[Tensor], number: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        return super()._direction(kind, gradient, moments, torch.where(number == 1, number, 10**6))


class FrozenNorm(ReferenceEngine):
    """The gradient's norm is a constant to the derivative."""

    def _direction(
        self, kind: str, gradient: Tensor, moments: Sequence[Tensor], number: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        return gradient / (gradient.detach().square().sum() + self.eps).sqrt(), list(moments)


class FrozenSquares(ReferenceEngine):
    """The squares under the root do not see the gradient's derivative."""

    def _direction(
        self, kind: str, gradient: Tensor, moments: Sequence[Tensor], number: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        direction, after = super()._direction(kind, gradient, moments, number)
        mean = gradient if kind == "rmsprop" else after[0]
        return mean * (direction / mean).detach(), after


class FrozenHalf(ReferenceEngine):
    """Extragradient's half point does not see the first gradient's derivative."""

    def _half_step(self, theta: Tensor, by: Tensor) -> Tensor:
        return super()._half_step(theta, by.detach())


class NoHalf(ReferenceEngine):
    """Extragradient without its first half."""

    def _half_step(self, theta: Tensor, by: Tensor) -> Tensor:
        return super()._half_step(theta, 0 * by)


class SwappedMasks(ReferenceEngine):
    """Each player reads the other's mask."""

    def adapt(self, phi: Tensor, data: Data, schedule: Schedule, rng: Rng, **options: Any) -> Adapted:
        active = None if schedule.active is None else schedule.active.flip(-1)
        return super().adapt(phi, data, replace(schedule, active=active), rng, **options)


class FirstBatch(ReferenceEngine):
    """Every step sees the first step's batch."""

    def _real(self, data: Data, at: tuple[slice | int, ...]) -> Tensor:
        return super()._real(data, (slice(None), 0) if len(at) == 2 else at)


class DividedByRate(ReferenceEngine):
    """F = (phi_k - phi_{k+1}) / rate: no derivative where the rate is 0."""

    def adapt(self, phi: Tensor, data: Data, schedule: Schedule, rng: Rng, **options: Any) -> Adapted:
        self._zero = schedule.rate == 0
        return super().adapt(phi, data, schedule, rng, **options)

    def pullback(self, saved: Saved, cotangents: Tensor, **options: Any) -> Pulled:
        pulled = super().pullback(saved, cotangents, **options)
        d_rate = None if pulled.d_rate is None else pulled.d_rate.where(~self._zero, 0.0)
        return replace(pulled, d_rate=d_rate)


class OneBadTask(ReferenceEngine):
    """One draw of 32 is off by 1e-4."""

    def pullback(self, saved: Saved, cotangents: Tensor, **options: Any) -> Pulled:
        pulled = super().pullback(saved, cotangents, **options)
        factor = torch.ones(saved.tasks, 1, dtype=self.dtype)
        factor[5] += 1e-4
        return replace(pulled, v0=pulled.v0 * factor)


class Coarse(ReferenceEngine):
    """As if exp, or a product's inputs, had three bits fewer than float32."""

    def pullback(self, saved: Saved, cotangents: Tensor, **options: Any) -> Pulled:
        pulled = super().pullback(saved, cotangents, **options)
        noise = torch.randn(pulled.v0.shape, generator=torch.Generator().manual_seed(0), dtype=self.dtype)
        return replace(pulled, v0=pulled.v0 * (1 + 8 * torch.finfo(F32).eps * noise))


class FlatSiLU(nn.Module):
    """SiLU whose f'' is lost: the tangent of f' is not followed."""

    def forward(self, x: Tensor) -> Tensor:
        at = x.detach()
        s = at.sigmoid()
        return at * s + s * (1 + at * (1 - s)) * (x - at)


WRONG: list[tuple[type[ReferenceEngine], Callable[[], Case], str]] = [
    (DetachedFake, lambda: BY_NAME["wide"], "v0"),
    (DetachedFake, lambda: find(play="alternating", optimisers=("sgd",)), "v0"),
    (WrongPoint, lambda: BY_NAME["ten-steps"], "v0"),
    (WrongPoint, lambda: find(play="alternating", steps=3, optimisers=("momentum",)), "v0"),
    (FirstOrder, lambda: BY_NAME["batch-1"], "v0"),
    (NoSmoothing, lambda: find(name=lambda n: n.endswith("nonsaturating-smooth")), "gradient.D"),
    (NoSmoothing, lambda: find(name=lambda n: n.endswith("least_squares-smooth")), "gradient.D"),
    (OneMean, lambda: find(fakes=1, reals=lambda n: n > 1), "gradient.D"),
    (ForgottenMoments, lambda: find(optimisers=("momentum",)), "v0"),
    (ForgottenMoments, lambda: BY_NAME["adam-simultaneous"], "v0"),
    (ForgottenMoments, lambda: BY_NAME["switching-3-alternating"], "v0"),
    (UncorrectedBias, lambda: BY_NAME["adam-simultaneous"], "phi"),
    (FrozenNorm, lambda: BY_NAME["normalised-simultaneous"], "v0"),
    (FrozenSquares, lambda: BY_NAME["rmsprop-simultaneous"], "v0"),
    (FrozenSquares, lambda: BY_NAME["adam-alternating"], "v0"),
    (FrozenHalf, lambda: BY_NAME["extragradient-simultaneous"], "v0"),
    (FrozenHalf, lambda: BY_NAME["extragradient-alternating"], "v0"),
    (NoHalf, lambda: BY_NAME["extragradient-alternating"], "phi"),
    (NoHalf, lambda: BY_NAME["extragradient-switching"], "phi"),
    (Dampened, lambda: find(optimisers=("momentum",)), "phi"),
    (SwappedMasks, lambda: BY_NAME["masks-critic-simultaneous"], "phi"),
    (FirstBatch, lambda: find(real="steps", steps=3), "phi"),
    (FirstBatch, lambda: find(real="pool", steps=3), "phi"),
    (DividedByRate, lambda: BY_NAME["zero-rate"], "d_rate"),
    (OneBadTask, lambda: BY_NAME["batch-1"], "v0"),
    (Coarse, lambda: BY_NAME["batch-1"], "v0"),
]


@pytest.mark.parametrize(("engine", "case", "quantity"), WRONG, ids=lambda x: getattr(x, "__name__", ""))
def test_wrong_engines_fail(engine: type[ReferenceEngine], case: Callable[[], Case], quantity: str) -> None:
    failed = failures(engine, case())
    assert any(row.quantity.startswith(quantity) for row in failed), f"{engine.__name__} passed: {failed}"


def test_lost_curvature_fails() -> None:
    rng_case = Case("curvature", GAN(*_silu(nn.SiLU), (3,)))
    flat = GAN(*_silu(FlatSiLU), (3,))

    def make(case: Case) -> ReferenceEngine:
        return ReferenceEngine(flat, fakes=case.fakes, reals=case.reals, dtype=F32)

    failed = {row.quantity for row in compare(make, rng_case) if not row.ok}
    assert any(name.startswith("v0") for name in failed)
    assert not any(name.startswith(("gradient", "phi", "trace")) for name in failed)


def _silu(activation: type[nn.Module]) -> tuple[nn.Sequential, nn.Sequential]:
    return (
        nn.Sequential(nn.Linear(3, 5), activation(), nn.Linear(5, 2)),
        nn.Sequential(nn.Linear(2, 5), activation(), nn.Linear(5, 1)),
    )


@pytest.mark.parametrize("name", ["wide", "random-09-least_squares", "everywhere-softplus"])
def test_another_order_of_summation_passes(name: str) -> None:
    """Float32 with the batch in another order is as good as torch's own: the bound is not too tight."""
    case = BY_NAME[name]

    class Reversed(ReferenceEngine):
        def _scores(
            self,
            theta_g: Tensor,
            theta_d: Tensor,
            norms: Vectors,
            z: Tensor,
            real: Tensor,
            numbers: Disturbance,
        ) -> _Scores:
            scores = super()._scores(theta_g, theta_d, norms, z.flip(0), real.flip(0), numbers)
            return _Scores(scores.fake, scores.real)

    assert not failures(Reversed, case)


def test_float64_passes_its_own_bound() -> None:
    assert all(row.ok for row in compare(make_reference(torch.float64), BY_NAME["batch-1"]))


def test_errors_are_measured_as_said() -> None:
    exact = torch.full((4, 5), 2.0)
    assert draw_errors(exact, exact).tolist() == [0.0] * 4
    off = exact.clone()
    off[1] += 0.2
    assert draw_errors(off, exact).tolist() == pytest.approx([0, 0.2, 0, 0])
    off[2, 3] = float("nan")
    off[3, 0] = float("inf")
    assert draw_errors(off, exact)[2:].tolist() == [float("inf")] * 2
    with pytest.raises(AssertionError, match="shape"):
        draw_errors(exact[:1], exact)
    assert rms(torch.tensor([3.0, 4.0])) == pytest.approx(12.5**0.5)


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_no_quantity_is_mostly_zero(case: Case) -> None:
    """A comparison of zeros proves nothing: most quantities of most cases must be alive, and every draw different."""
    inputs = draw(case, 4)
    found = measure(reference(case), case, inputs)
    alive = [name for name, value in found.items() if value.count_nonzero() > value.numel() // 4]
    # with scores of exactly zero, and in a dead or linear network, some second-order terms are zero by right
    assert len(alive) > 0.5 * len(found), sorted(set(found) - set(alive))
    assert not torch.equal(inputs.phi[0], inputs.phi[1])


def test_every_activation_loss_and_mode_occurs() -> None:
    layers = {
        type(layer)
        for case in cases()
        for network in (case.gan.generator, case.gan.discriminator)
        for layer in network.modules()
    }
    assert set(LAYERS) <= layers
    assert {case.gan.loss for case in cases()} == set(LOSSES)
    every = {(case.gan.loss, case.play, case.moments > 0) for case in cases()}
    assert len(every) == 20  # saturating and relativistic without moments
    for play in ("simultaneous", "alternating"):
        alone = {case.optimisers[0] for case in cases() if case.play == play and len(case.optimisers) == 1}
        assert alone == set(OPTIMISERS)
    assert {case.steps for case in cases()} >= {1, 3, 10}
    assert {case.storage for case in cases()} == {"all", "phi", "every:2", "nested"}
    assert {case.real for case in cases()} == {"repeat", "steps", "pool"}
    widths = {
        layer.out_features for case in cases() for layer in case.gan.generator if isinstance(layer, nn.Linear)
    }
    assert widths >= {1, 2, 3, 17, 63}


def test_state_is_part_of_the_draws() -> None:
    x = draw(find(optimisers=("momentum",)), 4)
    assert isinstance(x.state, State)
    assert x.state.moments.any()
    assert x.state_cotangents is not None
