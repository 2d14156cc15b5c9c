"""Every method's meta-step: the direction is the derivative it claims to be; failing tasks are left out."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pymgan import GAN, MAML, Data, Joint, Meta, Reptile, Rng, Scratch
from pymgan.arch import mlp
from pymgan.learner import RATE_RANGE, Learner
from pymgan.meta import from_config
from pymgan.meta.base import fine_tune
from pymgan.reference import ReferenceEngine
from pymgan.tasks import TaskBatch, get

SEED = 3
STEPS = 2


def make(loss: str = "nonsaturating") -> tuple[GAN, ReferenceEngine, Tensor]:
    gan = mlp((2,), latent=3, widths=(6,), loss=loss, seed=1)
    return gan, ReferenceEngine(gan, fakes=4, reals=4), gan.parameters_vector().double()


def batch(tasks: int = 3, queries: int = 4) -> TaskBatch:
    return get("rings").split("train").sample(tasks, 4, queries, np.random.default_rng(0))


def direction(meta: Meta, engine: Any, phi: Tensor, tasks: TaskBatch) -> Any:
    return meta.direction(engine, phi, meta.rates(), tasks, seed=SEED, step=0)


def along(function: Any, phi: Tensor, way: Tensor, eps: float = 1e-5) -> float:
    """The directional derivative by central differences."""
    return float((function(phi + eps * way) - function(phi - eps * way)) / (2 * eps))


def energy(
    engine: Any, phi: Tensor, batch: TaskBatch, *, samples: int, seed: int, step: int
) -> tuple[Tensor, Tensor]:
    """Energy distance [T] between generated and query samples, and its cotangent [T, P] at phi [T, P]."""
    z = engine.noise(Rng(seed, batch.ids), len(batch.ids), samples, step=step, stream=1)
    value, cotangent = engine.distance("energy", engine.generate(phi, z), batch.query.to(engine.dtype))
    return value, engine.generate_vjp(phi, z, cotangent)


def half(engine: ReferenceEngine, way: Tensor, which: str) -> Tensor:
    """A direction with one player's part only."""
    way = way.clone()
    if which == "G":
        way[engine.generator_parameters :] = 0
    else:
        way[: engine.generator_parameters] = 0
    return way


def test_energy_gradient_is_the_derivative_of_the_objective() -> None:
    _, engine, phi = make()
    meta, tasks = MAML(inner_steps=STEPS, samples=6), batch()

    def objective(at: Tensor) -> Tensor:
        adapted = fine_tune(engine, at, meta.rates(), tasks, seed=SEED, steps=STEPS)
        return energy(engine, adapted.phi, tasks, samples=6, seed=SEED, step=STEPS)[0].mean()

    result = direction(meta, engine, phi, tasks)
    way = torch.randn(phi.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert float(result.gradient @ way) == pytest.approx(along(objective, phi, way), rel=1e-5)
    assert result.metrics["objective"] == pytest.approx(float(objective(phi)))
    # The discriminator's half is a teacher's gradient: not zero, and a derivative too.
    teacher = half(engine, way, "D")
    assert float(result.gradient @ teacher) != 0
    assert float(result.gradient @ teacher) == pytest.approx(along(objective, phi, teacher), rel=1e-4)


@pytest.mark.parametrize("queries", [4, 8])
@pytest.mark.parametrize("objective", ["game", "joint"])
def test_game_gradients_are_each_players_own(objective: str, queries: int) -> None:
    _, engine, phi = make()
    meta, tasks = MAML(inner_steps=STEPS, objective=objective, samples=6), batch(queries=queries)

    def loss(player: str) -> Any:
        def value(at: Tensor) -> Tensor:
            adapted = fine_tune(engine, at, meta.rates(), tasks, seed=SEED, steps=STEPS).phi
            rng = Rng(SEED, tasks.ids)
            z = engine.noise(rng, len(tasks.ids), queries, step=STEPS, stream=1)
            total = torch.zeros((), dtype=torch.float64)
            for real, noise in zip(tasks.query.double().split(4, 1), z.split(4, 1), strict=True):
                result = engine.gradients(adapted, Data(real, noise=noise), rng)
                total = total + (result.loss_g if player == "G" else result.loss_d).mean() * 4 / queries
            if objective == "joint":
                total = total + energy(engine, adapted, tasks, samples=6, seed=SEED, step=STEPS)[0].mean()
            return total

        return value

    gradient = direction(meta, engine, phi, tasks).gradient
    way = torch.randn(phi.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for player in "GD":
        part = half(engine, way, player)
        assert float(gradient @ part) == pytest.approx(along(loss(player), phi, part), rel=1e-4)


def test_queries_that_no_whole_batches_make() -> None:
    _, engine, phi = make()
    with pytest.raises(ValueError, match="multiple of shots = 4"):
        direction(MAML(objective="game"), engine, phi, batch(queries=6))


def test_first_order_is_the_gradient_at_the_adapted_parameters() -> None:
    _, engine, phi = make()
    meta, tasks = MAML(inner_steps=STEPS, order=1, samples=6), batch()
    gradient = direction(meta, engine, phi, tasks).gradient
    adapted = fine_tune(engine, phi, meta.rates(), tasks, seed=SEED, steps=STEPS).phi
    _, quality = energy(engine, adapted, tasks, samples=6, seed=SEED, step=STEPS)
    split = engine.generator_parameters
    torch.testing.assert_close(gradient[:split], quality.mean(0)[:split])
    noise = engine.noise(Rng(SEED, tasks.ids), 3, 4, step=STEPS, stream=1)
    game = engine.gradients(adapted, Data(tasks.query.double(), noise=noise), Rng(SEED, tasks.ids)).gradient
    torch.testing.assert_close(gradient[split:], game.mean(0)[split:])


def test_learned_rates_have_their_derivative_and_stay_bounded() -> None:
    _, engine, phi = make()
    meta, tasks = MAML(inner_steps=STEPS, samples=6, learn_rates=True), batch()
    result = direction(meta, engine, phi, tasks)

    def objective(rates: Tensor) -> Tensor:
        adapted = fine_tune(engine, phi, rates, tasks, seed=SEED, steps=STEPS)
        return energy(engine, adapted.phi, tasks, samples=6, seed=SEED, step=STEPS)[0].mean()

    way = torch.tensor([[1.0, -0.5], [0.3, 2.0]], dtype=torch.float64)
    assert result.rates is not None
    assert float((result.rates * way).sum()) == pytest.approx(along(objective, meta.rates(), way), rel=1e-5)
    learner = Learner(meta, phi, split=2, steps=2000)
    for _ in range(1000):
        learner.descend(replace(result, rates=torch.tensor([[-1.0, 1.0], [-1.0, 1.0]])))
    assert float(learner.inner_rates[:, 0].max()) == pytest.approx(0.1 * RATE_RANGE)
    assert float(learner.inner_rates[:, 1].min()) == pytest.approx(0.1 / RATE_RANGE)


def test_reptile_and_joint() -> None:
    _, engine, phi = make()
    tasks = batch(tasks=4)
    reptile = Reptile(inner_steps=STEPS)
    adapted = fine_tune(engine, phi, reptile.rates(), tasks, seed=SEED, steps=STEPS)
    torch.testing.assert_close(direction(reptile, engine, phi, tasks).gradient, (phi - adapted.phi).mean(0))

    joint = direction(Joint(), engine, phi, tasks)
    assert len(joint.valid) == 8  # 4 tasks of 4 + 4 samples are 8 batches of 4
    other = direction(Joint(), engine, phi, replace(tasks, query=tasks.query + 1))
    assert not torch.equal(joint.gradient, other.gradient)  # it learns from the queries too
    _, large, _ = make()
    large.reals = large.fakes = 32
    rng = Rng(SEED, torch.arange(8))
    z = engine.noise(rng, 8, 4).flatten(0, 1).unsqueeze(0)
    pooled = torch.cat((tasks.support, tasks.query), 1).flatten(0, 1).unsqueeze(0).double()
    whole = large.gradients(phi.unsqueeze(0), Data(pooled, noise=z), Rng(SEED, torch.arange(1)))
    torch.testing.assert_close(joint.gradient, whole.gradient[0])


@pytest.mark.parametrize("meta", [MAML(), MAML(order=1), MAML(objective="joint"), Reptile()], ids=repr)
def test_a_non_finite_task_is_left_out(meta: Meta) -> None:
    _, engine, phi = make()
    tasks = batch()
    support = tasks.support.double()
    support[1] *= 1e300  # finite, but its gradients are not for long
    broken = replace(tasks, support=support)
    result = direction(meta, engine, phi, broken)
    assert result.valid.tolist() == [True, False, True]
    left = [0, 2]
    others = TaskBatch(tasks.support[left], tasks.query[left], tasks.ids[left], ["a", "b"])
    torch.testing.assert_close(result.gradient, direction(meta, engine, phi, others).gradient)
    learner = Learner(meta, phi, split=2, steps=5)
    learner.descend(result)
    assert (learner.tasks, learner.skipped) == (3, 1)
    assert bool(torch.isfinite(learner.parameters).all())


def test_a_step_without_a_valid_task_moves_nothing() -> None:
    _, engine, phi = make()
    tasks = batch()
    result = direction(
        MAML(), engine, phi, replace(tasks, query=torch.full_like(tasks.query.double(), 1e308))
    )
    learner = Learner(MAML(), phi, split=2, steps=5)
    learner.descend(result)
    assert torch.equal(learner.parameters, phi.float())
    assert learner.skipped == 3


def test_a_learner_continues_bit_for_bit() -> None:
    _, engine, phi = make()
    meta = MAML(inner_steps=1, learn_rates=True)
    whole, first = Learner(meta, phi, split=2, steps=5), Learner(meta, phi, split=2, steps=5)

    def advance(learner: Learner, steps: int) -> None:
        for _ in range(steps):
            tasks = get("rings").split("train").sample(2, 4, 4, np.random.default_rng(learner.step))
            learner.descend(
                meta.direction(
                    engine, learner.parameters, learner.inner_rates, tasks, seed=0, step=learner.step
                )
            )

    advance(whole, 5)
    advance(first, 2)
    tensors, counters = first.state()
    second = Learner(meta, torch.zeros_like(phi), split=2, steps=5)
    second.restore({name: value.clone() for name, value in tensors.items()}, counters)
    advance(second, 3)
    expected, got = whole.state(), second.state()
    assert expected[1] == got[1]
    assert expected[0].keys() == got[0].keys()
    for name, value in expected[0].items():
        assert torch.equal(value, got[0][name]), name


def test_clipping_and_average() -> None:
    phi = torch.zeros(4)
    learner = Learner(MAML(clip=1.0, ema=0.5), phi, split=2, steps=5)
    result = direction(Reptile(inner_steps=1), *make()[1:], batch())
    big = replace(result, gradient=torch.tensor([3000.0, 4000.0, 0.0, 0.0]))
    assert learner.descend(big) == pytest.approx(5000.0)
    assert bool((learner.average[:2] < 0).all())
    assert bool((learner.average[:2] > learner.parameters[:2]).all())  # between the start and the last step


def test_the_outer_rate_falls_to_zero() -> None:
    result = direction(Reptile(inner_steps=1), *make()[1:], batch())
    moves = {}
    for schedule in ("linear", "constant"):
        learner = Learner(MAML(schedule=schedule, clip=None), torch.zeros(4), split=2, steps=4)
        places = [learner.parameters.clone()]
        for _ in range(4):
            learner.descend(replace(result, gradient=torch.ones(4)))
            places.append(learner.parameters.clone())
        moves[schedule] = [float((a - b)[0]) for a, b in pairwise(places)]
    assert moves["constant"] == pytest.approx([3e-3] * 4, rel=1e-3)  # Adam on a constant gradient
    assert moves["linear"] == pytest.approx([3e-3, 2.25e-3, 1.5e-3, 0.75e-3], rel=1e-3)


def test_players_may_have_outer_rates_of_their_own() -> None:
    result = direction(Reptile(inner_steps=1), *make()[1:], batch())
    learner = Learner(MAML(outer_lr=(1e-3, 4e-3), schedule="constant"), torch.zeros(4), split=1, steps=4)
    learner.descend(replace(result, gradient=torch.ones(4)))
    assert learner.parameters.tolist() == pytest.approx([-1e-3, -4e-3, -4e-3, -4e-3], rel=1e-3)


def test_methods_are_values() -> None:
    for meta in (
        MAML(order=1, inner_lr=(0.1, 0.2), outer_lr=(0.1, 0.3), clip=None),
        Joint(outer_lr=0.1),
        Reptile(inner_optimiser="adam", inner_betas=(0.5, 0.9), inner_eps=1e-6),
        Scratch(),
    ):
        assert from_config(meta.to_config()) == meta
    with pytest.raises(TypeError):
        direction(Scratch(), *make()[1:], batch())
    with pytest.raises(ValueError, match=r"expected a method of maml.*, got 'proto'"):
        from_config({"name": "proto"})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"inner_steps": 0}, "inner_steps >= 1"),
        ({"inner_lr": -0.1}, "inner_lr >= 0"),
        ({"inner_lr": (0.1, float("nan"))}, "inner_lr >= 0"),
        ({"inner_lr": (0.1, 0.1, 0.1)}, "a number or a pair"),
        ({"outer_lr": float("inf")}, "outer_lr >= 0"),
        ({"inner_momentum": 1.0}, "inner_momentum >= 0 and < 1"),
        ({"inner_betas": (0.9, 1.0)}, "inner_betas >= 0 and < 1"),
        ({"inner_betas": (0.9, 0.9, 0.9)}, "inner_betas to be a number or a pair"),
        ({"inner_eps": 0.0}, "inner_eps > 0"),
        ({"inner_optimiser": "adamw"}, "inner_optimiser 'sgd', 'normalised', .*, got 'adamw'"),
        ({"clip": 0.0}, "clip > 0"),
        ({"schedule": "cosine"}, "schedule 'linear'"),
        ({"ema": 1.0}, "ema >= 0 and < 1"),
        ({"order": 3}, "order 1 or 2"),
        ({"objective": "mmd"}, "objective 'energy'"),
        ({"play": "both"}, "play 'simultaneous'"),
        ({"samples": 1}, "samples >= 2"),
        ({"learn_rates": True, "order": 1}, "learn_rates"),
    ],
)
def test_bad_values(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MAML(**fields)


def test_bad_types() -> None:
    for fields in ({"inner_steps": 2.5}, {"inner_lr": "0.1"}, {"inner_steps": True}):
        with pytest.raises(TypeError):
            MAML(**fields)  # type: ignore[arg-type]
