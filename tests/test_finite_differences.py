"""Finite differences in float64, of the oracle itself and of every engine: the one check that shares no derivative with anything.

phi_K is differenced along a random direction and compared with the pull-back along the same direction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor

from pymgan.contract import Data, Engine
from tests.engines import make
from tests.oracle_cases import Case, Inputs, cases, draw_far, make_reference

F64 = torch.float64
TASKS = 3
STEP = 1e-5
TOLERANCE = 2e-7  # of the size of what is differenced: rounding 1e-11, truncation of central differences 1e-10 and its constants

# Under spectral norms u and v move with phi, which derivatives do not see: test_spectral.py holds them.
CASES = [case for case in cases() if not case.name.startswith("spectral")]

ENGINES: dict[str, Callable[[Case], Engine]] = {
    "reference": make_reference(F64),
    "cpu": make("cpu", dtype=F64),
    "torch": make("torch", dtype=F64),
}


@cache
def inputs_of(case: Case) -> Inputs:
    """Float64 inputs, far from every kink. Rates of zero are moved off it: they cannot be differenced to both sides."""
    x = draw_far(case, TASKS).to(F64)
    return replace(x, schedule=replace(x.schedule, rate=x.schedule.rate.double().clamp(min=0.01)))


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(sum(shape)))


def close(difference: Tensor, derivative: Tensor, size: Tensor) -> None:
    error = (difference - derivative).abs()
    assert bool((error <= TOLERANCE * (size + derivative.abs())).all()), (difference, derivative, size)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_pullback(case: Case, engine: str) -> None:
    built, x = ENGINES[engine](case), inputs_of(case)
    T, K, P = TASKS, case.steps, built.parameters
    scale = torch.ones(P, dtype=F64) if x.schedule.scale is None else x.schedule.scale.double()
    v = x.cotangents[0]
    v_state = None if x.state_cotangents is None else x.state_cotangents[0]

    def objective(phi: Tensor, moments: Tensor, rate: Tensor, scale: Tensor) -> Tensor:
        after = built.adapt(
            phi,
            x.data,
            replace(x.schedule, rate=rate, scale=scale),
            x.rng,
            state=replace(x.state, moments=moments),
        )
        assert bool(after.trace.valid.all())
        value = ((after.phi - x.phi) * v).sum(1)
        return value if v_state is None else value + (after.state.moments * v_state).sum(1)

    point = [x.phi, x.state.moments, x.schedule.rate.expand(T, K, 2), scale]
    schedule = replace(x.schedule, rate=point[2], scale=scale)
    kept = built.adapt(x.phi, x.data, schedule, x.rng, state=x.state, keep=True).saved
    assert kept is not None
    pulled = built.pullback(kept, v, state_cotangents=v_state, rates=True)
    results = (pulled.v0, pulled.state_v0, pulled.d_rate, pulled.d_scale)
    size = v.norm(dim=1)
    for i, result in enumerate(results):
        if result is None:
            assert not case.moments
            continue
        direction = normal(*point[i].shape)
        direction = direction / direction.norm()
        moved = [
            [p + sign * STEP * direction if j == i else p for j, p in enumerate(point)] for sign in (1, -1)
        ]
        difference = (objective(*moved[0]) - objective(*moved[1])) / (2 * STEP)
        derivative = (result.double() * direction).reshape(T, -1).sum(1)
        close(difference, derivative, size)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_gradients_and_samples(case: Case, engine: str) -> None:
    built, x = ENGINES[engine](case), inputs_of(case)
    assert x.data.noise is not None
    real = x.data.real[:, 0] if x.data.indices is None else x.data.real
    batch = Data(real, None if x.data.indices is None else x.data.indices[:, 0], x.data.noise[:, 0])
    direction = normal(*x.phi.shape)
    direction = direction / direction.norm(dim=1, keepdim=True)
    sides = [built.gradients(x.phi + sign * STEP * direction, batch, x.rng) for sign in (1, -1)]
    full = built.gradients(x.phi, batch, x.rng, full=True)
    own = built.gradients(x.phi, batch, x.rng).gradient
    split = built.generator_parameters
    torch.testing.assert_close(
        own, torch.cat((full.gradient[0][:, :split], full.gradient[1][:, split:]), dim=1)
    )
    for name, gradient in (("loss_g", full.gradient[0]), ("loss_d", full.gradient[1])):
        difference = (getattr(sides[0], name) - getattr(sides[1], name)) / (2 * STEP)
        close(difference, (gradient * direction).sum(1), torch.ones(TASKS, dtype=F64))

    z, v = x.data.noise[:, 0], x.sample_cotangent
    both = [built.generate(x.phi + sign * STEP * direction, z) for sign in (1, -1)]
    difference = ((both[0] - both[1]) * v).reshape(TASKS, -1).sum(1) / (2 * STEP)
    close(difference, (built.generate_vjp(x.phi, z, v) * direction).sum(1), v.reshape(TASKS, -1).norm(dim=1))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("a", "b"), [(5, 7), (1, 4), (2, 1), (8, 8)])
def test_energy_distance(engine: str, a: int, b: int) -> None:
    built = ENGINES[engine](cases()[0])
    x, y, direction = normal(2, a, 3, 5), normal(2, b, 3, 5) + 0.5, normal(2, a, 3, 5)
    _, cotangent = built.distance("energy", x, y)
    sides = [built.distance("energy", x + sign * STEP * direction, y)[0] for sign in (1, -1)]
    difference = (sides[0] - sides[1]) / (2 * STEP)
    close(difference, (cotangent * direction).flatten(1).sum(1), torch.ones(2, dtype=F64))
