"""Inner optimisers: first steps, changes of kind, gradients of zero, and what a state carries. Exactness is the battery's."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor, nn

import pymgan
from pymgan.contract import OPTIMISERS, TRACE, Data, Engine, Rng, Schedule, State
from pymgan.engine import compile as compile_engine
from pymgan.gan import GAN
from pymgan.reference_optimisers import MOMENTS
from tests.parameters import parameters

F64 = torch.float64
ENGINES = ("cpu", "torch", "reference")
T, K, B = 3, 6, 4
GAME = GAN(
    nn.Sequential(nn.Linear(3, 9), nn.SiLU(), nn.Linear(9, 2)),
    nn.Sequential(nn.Linear(2, 18), nn.SiLU(), nn.Linear(18, 1)),
    (3,),
)
SPLIT = 9 * 4 + 2 * 10


def build(engine: str, *optimisers: str, dtype: torch.dtype = F64, **options: object) -> Engine:
    arguments: dict[str, object] = {"fakes": B, "reals": B, "optimisers": optimisers, "dtype": dtype}
    return compile_engine(GAME, engine=engine, **{**arguments, **options})  # type: ignore[arg-type]


def start(dtype: torch.dtype = F64) -> tuple[Tensor, Data, Rng]:
    import numpy as np

    numbers = torch.Generator().manual_seed(3)
    phi = parameters(np.random.default_rng(3), GAME, T).to(dtype)
    real = torch.randn(T, 1, B, 2, generator=numbers, dtype=F64).to(dtype).expand(T, K, B, 2)
    return phi, Data(real), Rng(5, torch.arange(T))


def first_gradient(engine: Engine, ahead: Tensor | float = 0.0) -> Tensor:
    """At phi - ahead."""
    phi, data, rng = start()
    return engine.gradients(phi - ahead, Data(data.real[:, 0]), rng).gradient


def halves(v: Tensor) -> tuple[Tensor, Tensor]:
    return v[..., :SPLIT], v[..., SPLIT:]


def one_step(engine: Engine, rate: float = 1.0) -> Tensor:
    """What the first step subtracts."""
    phi, data, rng = start()
    data = Data(data.real[:, :1])
    adapted = engine.adapt(phi, data, Schedule(torch.full((2,), rate, dtype=F64)), rng)
    return (phi - adapted.phi) / rate


# ---- what a step is ----


@pytest.mark.parametrize("engine", ENGINES)
def test_first_steps(engine: str) -> None:
    """From no moments: momentum, optimistic and SGD are the same; the others as they are defined. At rate 1."""
    eps = 1e-4
    f = first_gradient(build(engine, "sgd"))
    norms = [half.square().sum(1, keepdim=True).add(eps).sqrt() for half in halves(f)]
    wanted = {
        "sgd": f,
        "momentum": f,
        "optimistic": f,
        "nesterov": 1.9 * f,
        "normalised": torch.cat([half / norm for half, norm in zip(halves(f), norms, strict=True)], 1),
        "rmsprop": f / (0.001 * f.square() + eps).sqrt(),
        "adam": f / (f.square() + eps).sqrt(),
        "extragradient": first_gradient(build(engine, "sgd"), ahead=f),
    }
    assert set(wanted) == set(OPTIMISERS)
    for kind, direction in wanted.items():
        step = one_step(build(engine, kind, eps=eps))
        torch.testing.assert_close(step, direction, rtol=1e-10, atol=1e-12, msg=kind)


@pytest.mark.parametrize("engine", ENGINES)
def test_steps_of_adam_are_those_of_torch(engine: str) -> None:
    """With a vanishing eps, where its place does not matter; one player at a time, so that gradients are torch's own business."""
    phi, data, rng = start()
    built = build(engine, "adam", eps=1e-30)
    theta = torch.zeros(T, built.parameters, dtype=F64, requires_grad=True)
    adam = torch.optim.Adam([theta], lr=0.01, betas=(0.9, 0.999), eps=0.0)
    with torch.no_grad():
        theta.copy_(phi)
    state = built.initial_state(T)
    at = phi
    for k in range(4):
        one = Data(data.real[:, k : k + 1])
        noise = built.noise(rng, T, B, step=k)
        theta.grad = built.gradients(at, Data(data.real[:, k], noise=noise), rng).gradient
        adam.step()
        after = built.adapt(at, one, Schedule(torch.full((2,), 0.01, dtype=F64)), rng, state=state)
        at, state = after.phi, after.state
        torch.testing.assert_close(at, theta.detach(), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", [kind for kind in OPTIMISERS if kind != "sgd"])
@pytest.mark.parametrize("play", ["simultaneous", "alternating"])
def test_gradients_of_zero(engine: str, kind: str, play: str) -> None:
    """Both players flat: no gradient, no NaN, and phi stays. The usual eps, in float32."""
    built = build(engine, kind, dtype=torch.float32, play=play)
    phi, data, rng = start(torch.float32)
    flat = torch.zeros_like(phi)
    schedule = Schedule(torch.full((2,), 0.1))
    adapted = built.adapt(flat, Data(data.real * 0), schedule, rng, keep=True)
    assert adapted.saved is not None
    assert bool(adapted.trace.valid.all())
    pulled = built.pullback(adapted.saved, torch.ones_like(phi), rates=True)
    for value in (adapted.phi, adapted.state.moments, pulled.v0, pulled.d_rate, pulled.d_scale):
        assert value is not None
        assert bool(torch.isfinite(value).all())
    # G's weights have a gradient of zero: D is flat
    assert torch.equal(halves(adapted.phi)[0], halves(flat)[0])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", OPTIMISERS)
def test_a_rate_of_zero_has_a_derivative(engine: str, kind: str) -> None:
    """d phi_1 / d rate at rate 0 is minus the direction of the step, per player and per parameter."""
    built = build(engine, kind)
    twice = kind == "extragradient"  # its direction depends on the rate; at 0 it is SGD's
    direction = one_step(build(engine, "sgd") if twice else built)
    phi, data, rng = start()
    v = torch.randn(T, built.parameters, generator=torch.Generator().manual_seed(1), dtype=F64)
    for rate in (0.0,) if twice else (0.0, 0.5):
        schedule = Schedule(torch.full((2,), rate, dtype=F64))
        saved = built.adapt(phi, Data(data.real[:, :1]), schedule, rng, keep=True).saved
        assert saved is not None
        pulled = built.pullback(saved, v, rates=True)
        assert pulled.d_rate is not None
        along = torch.stack([half.sum(1) for half in halves(direction * v)], 1)
        torch.testing.assert_close(pulled.d_rate[:, 0], -along, rtol=1e-8, atol=1e-9)
        torch.testing.assert_close(pulled.d_scale, -rate * direction * v, rtol=1e-8, atol=1e-9)


# ---- extragradient ----

BILINEAR = GAN(
    nn.Sequential(nn.Linear(1, 1)), nn.Sequential(nn.Linear(1, 1, bias=False)), (1,), loss="wasserstein"
)


def distances(engine: str, kind: str, rate: float, steps: int) -> tuple[float, float]:
    """From the equilibrium of L_D = -L_G = w b, at (0, 0), at the beginning and after the steps: z and the real samples are 0."""
    built = compile_engine(BILINEAR, engine=engine, fakes=B, reals=B, optimisers=(kind,), dtype=F64)
    zeros = torch.zeros(1, steps, B, 1, dtype=F64)
    phi = torch.tensor([[0.3, 0.6, -0.8]], dtype=F64)  # weight and bias of G, and D's weight
    schedule = Schedule(torch.full((2,), rate, dtype=F64))
    after = built.adapt(phi, Data(zeros, noise=zeros), schedule, Rng(0, torch.zeros(1).long())).phi
    assert after[0, 0] == phi[0, 0]
    return phi[0, 1:].norm().item(), after[0, 1:].norm().item()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_extragradient_converges_where_sgd_does_not(engine: str, rate: float) -> None:
    """min over b, max over w of w b: a step of SGD multiplies the distance by sqrt(1 + r^2), one of extragradient by
    sqrt((1 - r^2)^2 + r^2), which is below 1."""
    steps = 60
    before, sgd = distances(engine, "sgd", rate, steps)
    assert sgd == pytest.approx(before * (1 + rate**2) ** (steps / 2), rel=1e-12)
    before, extragradient = distances(engine, "extragradient", rate, steps)
    assert extragradient == pytest.approx(before * ((1 - rate**2) ** 2 + rate**2) ** (steps / 2), rel=1e-12)
    assert extragradient < 0.75 * before < sgd


@pytest.mark.parametrize("engine", ENGINES)
def test_extragradient_is_traced_where_it_starts(engine: str) -> None:
    phi, data, rng = start()
    schedule = Schedule(torch.full((2,), 0.5, dtype=F64))
    sgd, twice = (
        build(engine, kind).adapt(phi, Data(data.real[:, :1]), schedule, rng)
        for kind in ("sgd", "extragradient")
    )
    for name in TRACE:
        torch.testing.assert_close(getattr(twice.trace, name), getattr(sgd.trace, name), rtol=1e-12, atol=0)
    assert not torch.allclose(twice.phi, sgd.phi)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("play", ["simultaneous", "alternating"])
@pytest.mark.parametrize("kinds", [("extragradient",), ("sgd", "extragradient")])
def test_a_half_point_that_is_not_finite_ends_the_task(
    engine: str, play: str, kinds: tuple[str, ...]
) -> None:
    """The step stands still, and the other tasks go on, whatever their kind."""
    built = build(engine, *kinds, play=play)
    phi, data, rng = start()
    last = len(kinds) - 1
    kind = torch.tensor([[0, 0], [0, last], [last, 0]])
    rate = torch.full((T, 2, 2), 0.1, dtype=F64)
    rate[1, 1] = 1e305
    adapted = built.adapt(phi, Data(data.real[:, :2]), Schedule(rate, kind=kind), rng, keep=True)
    assert adapted.trace.valid.tolist() == [True, False, True]
    assert adapted.state.count.tolist() == [2, 1, 2]
    first = built.adapt(phi, Data(data.real[:, :1]), Schedule(rate[:, :1], kind=kind[:, :1]), rng)
    assert torch.equal(adapted.phi[1], first.phi[1])
    assert adapted.saved is not None
    v0 = built.pullback(adapted.saved, torch.ones_like(phi)).v0
    assert bool(torch.isfinite(v0).all())
    assert not v0[1].any()


# ---- changes of kind ----

KINDS = ("adam", "sgd", "momentum", "rmsprop", "optimistic", "extragradient")


def schedule_of(kinds: list[int], active: Tensor | None = None) -> Schedule:
    return Schedule(torch.full((2,), 0.05, dtype=F64), active, kind=torch.tensor(kinds))


def parts(engine: Engine, schedule: Schedule, *cuts: int) -> tuple[Tensor, State]:
    """K steps in several calls."""
    phi, data, rng = start()
    state = None
    for first, last in zip((0, *cuts), (*cuts, K), strict=True):
        assert isinstance(schedule.kind, Tensor)
        active = None if schedule.active is None else schedule.active[first:last]
        part = Schedule(schedule.rate, active, kind=schedule.kind[first:last])
        after = engine.adapt(phi, Data(data.real[:, first:last]), part, rng, state=state)
        phi, state = after.phi, after.state
    assert state is not None
    return phi, state


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "kinds", [[0, 0, 0, 1, 1, 0], [0, 3, 2, 2, 4, 4], [1, 1, 4, 0, 0, 0], [0, 5, 5, 0, 2, 5]]
)
def test_split_where_the_kind_changes(engine: str, kinds: list[int]) -> None:
    active = torch.ones(K, 2, dtype=torch.bool)
    active[[0, 3], 0] = False
    active[4, 1] = False
    built, schedule = build(engine, *KINDS), schedule_of(kinds, active)
    whole_phi, whole = parts(built, schedule)
    for cuts in ((1,), (3,), (2, 4), (1, 2, 3, 4, 5)):
        phi, state = parts(built, schedule, *cuts)
        assert torch.equal(phi, whole_phi)
        for item in fields(State):
            assert torch.equal(getattr(state, item.name), getattr(whole, item.name)), (cuts, item.name)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_change_of_kind_starts_from_zero_moments(engine: str) -> None:
    """As a new run would, from where phi is then; not in the steps after it."""
    built, alone = build(engine, *KINDS), build(engine, "adam")
    phi, data, rng = start()
    rate = torch.full((2,), 0.05, dtype=F64)
    after = built.adapt(phi, Data(data.real[:, :3]), schedule_of([2, 2, 2]), rng)
    assert after.state.updates.tolist() == [[3, 3]] * T
    assert after.state.kind.tolist() == [[2, 2]] * T
    second = built.adapt(after.phi, Data(data.real[:, 3:]), schedule_of([0, 0, 0]), rng, state=after.state)
    fresh = replace(alone.initial_state(T), count=after.state.count)
    wanted = alone.adapt(after.phi, Data(data.real[:, 3:]), Schedule(rate), rng, state=fresh)
    assert torch.equal(second.phi, wanted.phi)
    assert torch.equal(second.state.moments, wanted.state.moments)
    assert second.state.updates.tolist() == wanted.state.updates.tolist() == [[3, 3]] * T
    assert second.state.kind.tolist() == [[0, 0]] * T


@pytest.mark.parametrize("engine", ENGINES)
def test_a_player_that_rests_keeps_its_state(engine: str) -> None:
    """Its bias correction counts its own updates: an Adam that rests two steps goes on as if they had not been."""
    built = build(engine, "adam", "sgd")
    phi, data, rng = start()
    rate = torch.full((2,), 0.05, dtype=F64)
    before = built.adapt(phi, Data(data.real[:, :3]), Schedule(rate), rng)
    rest = Schedule(rate, torch.zeros(2, dtype=torch.bool), kind=1)
    after = built.adapt(before.phi, Data(data.real[:, :2]), rest, rng, state=before.state)
    assert torch.equal(after.phi, before.phi)
    assert after.state.count.tolist() == [5] * T
    for name in ("moments", "updates", "kind"):
        assert torch.equal(getattr(after.state, name), getattr(before.state, name))


# ---- what engines are ----


@pytest.mark.parametrize("engine", ENGINES)
def test_room_for_moments(engine: str) -> None:
    for kind in OPTIMISERS:
        built = build(engine, kind)
        assert (built.moments, built.optimisers) == (MOMENTS[kind], (kind,))
        assert built.initial_state(2).moments.shape == (2, MOMENTS[kind] * built.parameters)
    assert build(engine, *OPTIMISERS).moments == 2
    assert build(engine, "sgd", "optimistic").moments == 1


def test_plain_sgd_is_fused() -> None:
    """Its gradient is never stored, and its pull-back reads v itself."""
    program = build("cpu", "sgd").program  # type: ignore[attr-defined]
    assert all(i.theta is not None for i in program.step.code if i.op == "outer")
    assert not any(i.op == "adjoint" for i in program.pull(["GD"], ["GD"]).code)
    for kind in OPTIMISERS[1:]:
        program = build("cpu", kind).program  # type: ignore[attr-defined]
        adjoints = [i for i in program.pull(["GD"], ["GD"]).code if i.op == "adjoint"]
        assert len(adjoints) == (4 if kind == "extragradient" else 2)
        # the gradient is made again only for an adjoint that reads it
        reads = kind in ("normalised", "rmsprop", "adam")
        assert all((i.a0 is not None) == reads for i in adjoints)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimisers": "adam"}, r"optimisers: expected a tuple of some of sgd, normalised, .*, got 'adam'"),
        ({"optimisers": ()}, r"optimisers: expected a tuple of some of sgd, .*, got \(\)"),
        ({"optimisers": ("sgd", "lion")}, r"optimisers: expected some of sgd, .*, got 'lion'"),
        ({"optimisers": ("sgd", "sgd")}, r"optimisers: expected each kind once, got 'sgd' twice"),
        ({"momentum": 1.0}, r"momentum: expected a number in \[0, 1\), got 1.0"),
        ({"betas": (0.9, 1.0)}, r"betas: expected a number in \[0, 1\), got 1.0"),
        ({"betas": (0.9,)}, r"betas: expected two numbers in \[0, 1\), got \(0.9,\)"),
        ({"betas": 0.9}, r"betas: expected two numbers"),
        ({"eps": 0.0}, r"eps: expected a finite number above 0, got 0.0"),
        ({"eps": math.nan}, r"eps: expected a finite number above 0, got nan"),
    ],
)
def test_bad_values(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=r"\[compile\] " + message):
        pymgan.compile(GAME, **options)  # type: ignore[arg-type]
