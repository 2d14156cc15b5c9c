"""What must hold bit for bit: splitting, threads, storage, exact numbers, buffers with rubbish in them, tasks beside bad ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pymgan.contract import OPTIMISERS, Data, Engine, Rng, Schedule, State
from pymgan.gan import GAN
from tests.battery import fingerprint, measure
from tests.engines import Make, all_engines, make
from tests.oracle_cases import STORAGE, Case, Inputs, cases, draw, reference, steps_of, take

ENGINES = all_engines()
CPU = {name: build for name, build in ENGINES.items() if name.startswith("cpu")}
BY_NAME = {case.name: case for case in cases()}
SOME = [
    "random-02-hinge",
    "random-03-least_squares",
    "random-08-hinge",
    "random-13-nonsaturating-smooth",
    "random-23-wasserstein",
    "masks-random-alternating-momentum",
    "masks-critic-simultaneous",
    "wide",
    "adam-simultaneous",
    f"switching-{len(OPTIMISERS)}-simultaneous",
]


def part(inputs: Inputs, steps: slice) -> tuple[Data, Schedule]:
    """Some of the inner steps, with noise that the engine draws."""
    data = inputs.data
    pooled = data.indices is not None
    cut = Data(data.real, data.indices[:, steps]) if pooled else Data(data.real[:, steps])
    return cut, steps_of(inputs.schedule, steps)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", SOME)
def test_adapting_in_two_parts(name: str, engine: str) -> None:
    case = BY_NAME[name]
    built = ENGINES[engine](case)
    x = draw(case, 6).to(built.dtype)
    whole = built.adapt(x.phi, *part(x, slice(None)), x.rng, state=x.state)
    for cut in {1, case.steps // 2, case.steps - 1}:
        first = built.adapt(x.phi, *part(x, slice(0, cut)), x.rng, state=x.state)
        second = built.adapt(first.phi, *part(x, slice(cut, None)), x.rng, state=first.state)
        assert torch.equal(second.phi, whole.phi)
        for item in fields(State):
            assert torch.equal(getattr(second.state, item.name), getattr(whole.state, item.name)), item.name
        assert torch.equal(torch.cat((first.trace.loss_d, second.trace.loss_d), dim=1), whole.trace.loss_d)


@pytest.mark.parametrize("engine", ["cpu", "torch"])
@pytest.mark.parametrize(
    "name", ["random-03-least_squares", "masks-random-alternating-momentum", "switching-3-alternating"]
)
def test_pulling_back_in_two_parts(name: str, engine: str) -> None:
    """The pull-back through the second call, then through the first, is the pull-back through both."""
    case = BY_NAME[name]
    built = make(engine)(case)
    x = draw(case, 6).to(built.dtype)
    v, v_state = x.cotangents[:1], None if x.state_cotangents is None else x.state_cotangents[:1]
    whole = built.adapt(x.phi, *part(x, slice(None)), x.rng, state=x.state, keep=True)
    first = built.adapt(x.phi, *part(x, slice(0, 2)), x.rng, state=x.state, keep=True)
    second = built.adapt(first.phi, *part(x, slice(2, None)), x.rng, state=first.state, keep=True)
    assert whole.saved is not None
    assert first.saved is not None
    assert second.saved is not None
    at_once = built.pullback(whole.saved, v, state_cotangents=v_state, rates=True)
    late = built.pullback(second.saved, v, state_cotangents=v_state, rates=True)
    early = built.pullback(first.saved, late.v0, state_cotangents=late.state_v0, rates=True)
    assert torch.equal(early.v0, at_once.v0)
    assert early.d_rate is not None
    assert late.d_rate is not None
    assert torch.equal(torch.cat((early.d_rate, late.d_rate), dim=2), at_once.d_rate)


@pytest.mark.parametrize("engine", CPU)
@pytest.mark.parametrize("name", SOME)
def test_any_number_of_threads(name: str, engine: str) -> None:
    case = BY_NAME[name]
    isa = engine.split("-")[1]
    x = draw(case, 7)
    dtype = torch.float32 if engine.endswith("32") else torch.float64
    found = {
        fingerprint(measure(make("cpu", isa=isa, dtype=dtype, threads=n)(case), case, x)) for n in (1, 2, 3)
    }
    assert len(found) == 1


@pytest.mark.parametrize("engine", CPU)
def test_a_task_does_not_depend_on_the_others(engine: str) -> None:
    case = BY_NAME["random-13-nonsaturating-smooth"]
    built = CPU[engine](case)
    x = draw(case, 8)
    together = measure(built, case, x)
    alone = measure(built, case, take(x, torch.tensor([5])))
    for name, value in together.items():
        assert torch.equal(value[5:6], alone[name]), name


@pytest.mark.parametrize("engine", [name for name in ENGINES if name.endswith("32")])
@pytest.mark.parametrize("name", SOME)
def test_storage_modes_agree(name: str, engine: str) -> None:
    case = BY_NAME[name]
    x = draw(case, 5)
    found = {}
    for storage in (*STORAGE, "every:1", "every:3", "every:100"):
        found[storage] = measure(ENGINES[engine](replace(case, storage=storage)), case, x)
    for storage, quantities in found.items():
        for quantity, value in quantities.items():
            assert torch.equal(value, found["all"][quantity]), (storage, quantity)


@pytest.fixture
def rubbish() -> Iterator[None]:
    """Memory that torch hands out uninitialised is filled with NaN."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(before)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", [*SOME, "width-1", "batch-1"])
def test_workspaces_full_of_nan(name: str, engine: str, rubbish: None) -> None:
    case = BY_NAME[name]
    assert torch.empty(4).isnan().all()
    x = draw(case, 3)
    built = ENGINES[engine](case)
    in_rubbish = fingerprint(measure(built, case, x))
    torch.use_deterministic_algorithms(False)
    assert fingerprint(measure(built, case, x)) == in_rubbish  # and in what the first run left behind
    assert fingerprint(measure(ENGINES[engine](case), case, x)) == in_rubbish


@pytest.mark.parametrize("engine", CPU)
@pytest.mark.parametrize("name", [*SOME, "width-1", "batch-1", "no-bias"])
def test_sentinels_around_buffers(name: str, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every buffer that the engine allocates lies between guards that nothing may touch."""
    case = BY_NAME[name]
    x = draw(case, 3)
    guard, mark = 64, -12345.0
    empty, zeros = torch.empty, torch.zeros
    buffers: list[Tensor] = []

    def guarded(*shape: Any, dtype: torch.dtype | None = None, **options: Any) -> Tensor:
        size = torch.Size(shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape)
        whole = empty(size.numel() + 2 * guard, dtype=dtype, **options).fill_(mark)
        buffers.append(whole)
        inside = whole[guard : guard + size.numel()]
        assert inside.data_ptr() % 64 == 0
        return inside.view(size)

    def guarded_zeros(*shape: Any, **options: Any) -> Tensor:
        if options.get("dtype") in (torch.uint8, torch.bool):
            return zeros(*shape, **options)
        return guarded(*shape, **options).zero_()

    monkeypatch.setattr(torch, "empty", guarded)
    monkeypatch.setattr(torch, "zeros", guarded_zeros)
    monkeypatch.setattr(torch, "empty_like", lambda t: guarded(*t.shape, dtype=t.dtype))
    measure(CPU[engine](case), case, x)
    monkeypatch.undo()
    assert len(buffers) > 10
    for whole in buffers:
        assert bool((whole[:guard] == mark).all())
        assert bool((whole[-guard:] == mark).all())


# ---- sums over tasks ----


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", ["sgd", "momentum", "adam"])
def test_weighted_sums_over_tasks(engine: str, kind: str) -> None:
    """What `weight` sums is what comes back without it, in the order of the tasks; a bad task is left out and named."""
    case = next(
        c for c in BY_NAME.values() if c.optimisers == (kind,) and c.steps > 1 and c.play == "alternating"
    )
    x = draw(case, 7)
    built = ENGINES[engine](case)
    x = x.to(built.dtype)
    saved = built.adapt(x.phi, x.data, x.schedule, x.rng, state=x.state, keep=True).saved
    assert saved is not None
    v = x.cotangents[:2].clone()
    v[1, 4, 0] = torch.nan
    each = built.pullback(saved, v, keep=["G", "GD"], rates=True)
    weight = torch.tensor([1.0, -2.0, 0.0, 0.5, 3.0, 1.0, 1.0])
    summed = built.pullback(saved, v, keep=["G", "GD"], rates=True, weight=weight)
    assert each.valid.all()
    assert summed.valid.tolist() == [True, True, True, True, False, True, True]
    assert torch.equal(summed.d_rate.nan_to_num(), each.d_rate.nan_to_num())  # type: ignore[union-attr]
    for name in ("v0", "d_scale", *(["state_v0"] if case.moments else [])):
        value, total = getattr(each, name).double(), getattr(summed, name).double()
        expected = sum(weight[t].double() * value[:, t] for t in range(7) if t != 4)
        size = sum(weight[t].double().abs() * value[:, t].abs() for t in range(7) if t != 4)
        assert ((total - expected).abs() <= 4 * torch.finfo(built.dtype).eps * size).all(), name
        assert total.any()
    if engine.startswith("cpu"):
        sums = []
        for threads in (1, 3):
            other = make("cpu", threads=threads, dtype=built.dtype)(case)
            kept = other.adapt(x.phi, x.data, x.schedule, x.rng, state=x.state, keep=True).saved
            assert kept is not None
            sums.append(other.pullback(kept, x.cotangents, weight=weight).v0)
        assert torch.equal(*sums)


# ---- exact numbers ----


def integer_case(loss: str, play: str, momentum: float, steps: int) -> tuple[Case, Inputs]:
    """Small integers, halved now and then: every intermediate result is a float32, in whatever order it is summed."""
    gan = GAN(
        nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)),
        nn.Sequential(nn.Linear(2, 3), nn.LeakyReLU(2.0), nn.Linear(3, 1)),
        (2,),
        loss=loss,
    )
    kind = "momentum" if momentum else "sgd"
    case = Case(
        "integers",
        gan,
        fakes=2,
        reals=1,
        steps=steps,
        play=play,
        optimisers=(kind,),
        momentum=momentum,
        masks="random",
    )
    x = draw(case, 20)
    rng = np.random.default_rng(3)

    def whole(like: Tensor, low: int = -1, high: int = 1) -> Tensor:
        return torch.from_numpy(rng.integers(low, high + 1, tuple(like.shape))).float()

    assert x.data.noise is not None
    schedule = Schedule(torch.ones_like(x.schedule.rate), x.schedule.active, whole(x.phi[0], 0, 2))
    whole_state = replace(x.state, moments=whole(x.state.moments))
    return case, replace(
        x,
        phi=whole(x.phi),
        state=whole_state,
        data=Data(whole(x.data.real), None, whole(x.data.noise)),
        schedule=schedule,
        cotangents=whole(x.cotangents),
        state_cotangents=None if x.state_cotangents is None else whole(x.state_cotangents),
        sample_cotangent=whole(x.sample_cotangent),
    )


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("loss", "momentum", "steps"),
    [
        ("wasserstein", 0.0, 1),
        ("wasserstein", 0.5, 1),
        ("wasserstein", 0.0, 2),
        ("least_squares", 0.0, 1),
        ("least_squares", 0.5, 1),
        ("hinge", 0.5, 1),
        ("hinge", 0.0, 2),
    ],
)
@pytest.mark.parametrize("play", ["simultaneous", "alternating"])
def test_exact_on_small_integers(loss: str, play: str, momentum: float, steps: int, engine: str) -> None:
    case, x = integer_case(loss, play, momentum, steps)
    exact, rounded = (measure(reference(case, dtype), case, x) for dtype in (torch.float64, torch.float32))
    names = [name for name in exact if not any(root in name for root in ("norm", "std", "distance"))]
    same = [(rounded[name] == exact[name]).reshape(len(x.phi), -1).all(dim=1) for name in names]
    small = torch.stack(same).all(dim=0)  # the others outgrow 24 bits
    assert int(small.sum()) >= 6
    found = measure(ENGINES[engine](case), case, x)
    for name in names:
        assert torch.equal(found[name][small], exact[name][small]), name
    assert sum(bool(exact[name][small].any()) for name in names) > 0.6 * len(names)


# ---- bad tasks ----


def spoil(x: Inputs) -> tuple[Inputs, list[int]]:
    """Tasks 1 and 4 overflow at once, task 2 has NaN parameters, task 6 gets a rate that throws it out after the first step."""
    phi, rate = x.phi.clone(), x.schedule.rate.clone()
    phi[1] *= 1e30
    phi[4] = -3e38
    phi[2, 3] = float("nan")
    rate[6] = 1e37
    return replace(x, phi=phi, schedule=replace(x.schedule, rate=rate)), [1, 2, 4, 6]


@pytest.mark.parametrize("engine", [name for name in ENGINES if name.endswith("32")])
@pytest.mark.parametrize("name", ["random-07-nonsaturating-smooth", "random-15-least_squares", "ten-steps"])
def test_bad_tasks_do_not_spoil_the_others(name: str, engine: str) -> None:
    case = BY_NAME[name]
    built = ENGINES[engine](case)
    clean = draw(case, 8)
    bad, which = spoil(clean)
    good = torch.ones(8, dtype=torch.bool)
    good[which] = False

    def run(built: Engine, x: Inputs) -> tuple[Any, Any]:
        adapted = built.adapt(x.phi, x.data, x.schedule, x.rng, state=x.state, keep=True)
        assert adapted.saved is not None
        return adapted, built.pullback(
            adapted.saved, x.cotangents, state_cotangents=x.state_cotangents, rates=True
        )

    (adapted, pulled), (wanted, wanted_pulled) = run(built, bad), run(built, clean)
    oracle, _ = run(reference(case, torch.float32), bad)
    assert torch.equal(adapted.trace.valid, oracle.trace.valid)
    assert torch.equal(adapted.state.count, oracle.state.count)
    assert bool(adapted.trace.valid[good].all())
    invalid = ~adapted.trace.valid
    assert int(invalid.sum()) >= 3  # a loss that saturates survives some of it
    assert torch.equal(adapted.phi[good], wanted.phi[good])
    assert torch.equal(adapted.state.moments[good], wanted.state.moments[good])
    for field in ("v0", "state_v0", "d_rate", "d_scale"):
        value, exact = getattr(pulled, field), getattr(wanted_pulled, field)
        if value is not None:
            assert torch.equal(value[:, good], exact[:, good]), field
            assert not value[:, invalid].any(), field
    # the last finite parameters; NaN that came in goes out as it came
    assert bool(torch.isfinite(adapted.phi[[1, 4, 6]]).all())
    torch.testing.assert_close(
        adapted.phi[invalid], oracle.phi[invalid], rtol=1e-3, atol=1e-3, equal_nan=True
    )


# ---- the form of arguments ----


@pytest.mark.parametrize("engine", ENGINES)
def test_strides_pools_and_broadcasts_are_only_forms(engine: str) -> None:
    """The same numbers, handed in as a pool, with strides of zero, transposed, or broadcast: the same bits."""
    case = BY_NAME["random-06-nonsaturating"]
    case = replace(case, steps=3, real="repeat", masks="", scale=False)
    built = ENGINES[engine](case)
    x = draw(case, 4).to(built.dtype)
    rate = x.schedule.rate[:1, :1, :].contiguous()

    def run(real: Tensor, indices: Tensor | None, phi: Tensor, rate: Tensor, active: Tensor | None) -> Tensor:
        adapted = built.adapt(
            phi, Data(real, indices, x.data.noise), Schedule(rate, active), x.rng, keep=True
        )
        assert adapted.saved is not None
        return torch.stack((adapted.phi, built.pullback(adapted.saved, x.cotangents[0]).v0))

    one = x.data.real[:, :1]
    phi = x.phi[:1].expand(4, -1)
    base = run(one.expand(4, 3, *one.shape[2:]), None, phi.contiguous(), rate.expand(4, 3, 2), None)
    dense = one.expand(4, 3, *one.shape[2:]).contiguous()
    turned = dense.transpose(0, 1).contiguous().transpose(0, 1)
    inside_out = dense.transpose(2, -1).contiguous().transpose(2, -1)
    pool = one[:, 0].flatten(0, 1)
    rows = torch.arange(len(pool), dtype=torch.int32).view(4, 1, -1).expand(4, 3, -1)
    everyone = torch.ones(3, 2, dtype=torch.bool)
    forms = [
        (dense, None, phi, rate.expand(4, 3, 2).contiguous(), None),
        (turned, None, phi[0], rate[0, 0], everyone),
        (inside_out, None, phi, rate[0].expand(3, 2), everyone.expand(4, 3, 2)),
        (pool, rows, phi, rate, everyone[0]),
        (pool, rows.contiguous(), phi.contiguous(), rate.expand(1, 3, 2), None),
        (pool.flip(0), (len(pool) - 1 - rows).contiguous(), phi, rate.float(), None),
    ]
    for i, form in enumerate(forms):
        assert torch.equal(run(*form), base), i


@pytest.mark.parametrize("engine", ENGINES)
def test_support_and_keep(engine: str) -> None:
    """What is left out of a pull-back changes nothing of what is left: v0 with halves named is v0 without."""
    for case in (BY_NAME["ten-steps"], BY_NAME["random-13-nonsaturating-smooth"], BY_NAME["batch-1"]):
        built = ENGINES[engine](case)
        x = draw(case, 3).to(built.dtype)
        split, eps = built.generator_parameters, torch.finfo(built.dtype).eps
        saved = built.adapt(x.phi, x.data, x.schedule, x.rng, state=x.state, keep=True).saved
        assert saved is not None
        for half in ("G", "D"):
            v, other = x.cotangents[0].clone(), slice(split, None) if half == "G" else slice(0, split)
            v[:, other] = 0
            plain = built.pullback(saved, v).v0
            size = plain.abs().max()
            assert bool(((built.pullback(saved, v, support=half).v0 - plain).abs() <= 64 * eps * size).all())
            kept = built.pullback(saved, v, keep=half).v0
            mine = slice(0, split) if half == "G" else slice(split, None)
            assert bool(((kept[:, mine] - plain[:, mine]).abs() <= 64 * eps * size).all())
            assert not kept[:, other].any()


@pytest.mark.parametrize("engine", ENGINES)
def test_no_step_at_a_rate_of_zero(engine: str) -> None:
    """A rate of 0 moves nothing, the pull-back is the identity, and the derivative with respect to the rate is there."""
    case = BY_NAME["batch-1"]
    built = ENGINES[engine](case)
    x = draw(case, 4).to(built.dtype)
    adapted = built.adapt(x.phi, x.data, Schedule(torch.zeros(2)), Rng(0, torch.arange(4)), keep=True)
    assert torch.equal(adapted.phi, x.phi)
    assert adapted.saved is not None
    pulled = built.pullback(adapted.saved, x.cotangents[0], rates=True)
    assert torch.equal(pulled.v0, x.cotangents[0])
    assert pulled.d_rate is not None
    assert pulled.d_scale is not None
    assert bool(pulled.d_rate.all())
    assert not pulled.d_scale.any()


def test_masked_players_stay() -> None:
    case = replace(BY_NAME["masks-random-alternating-momentum"], play="simultaneous")
    builds: list[Callable[[Case], Engine]] = [reference, *ENGINES.values()]
    for build in builds:
        built: Make | Engine = build(case)
        assert isinstance(built, Engine)
        x = draw(case, 4).to(built.dtype)
        split = built.generator_parameters
        for player, mine in ((0, slice(0, split)), (1, slice(split, None))):
            active = torch.ones(2, dtype=torch.bool)
            active[player] = False
            after = built.adapt(x.phi, x.data, Schedule(x.schedule.rate, active), x.rng, state=x.state)
            assert torch.equal(after.phi[:, mine], x.phi[:, mine])
            assert torch.equal(after.state.moments[:, mine], x.state.moments[:, mine])
            others = slice(split, None) if player == 0 else slice(0, split)
            assert bool((after.phi[:, others] != x.phi[:, others]).any(dim=1).all())
