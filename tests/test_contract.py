"""What engines refuse, every one of them with the same words; and the GAN that they are made from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pymgan.contract import Data, Engine, Objective, Rng, Schedule, State
from pymgan.gan import GAN, Penalty
from pymgan.reference import ReferenceEngine
from tests.engines import make
from tests.oracle_cases import Case

GAME = GAN(
    nn.Sequential(nn.Linear(3, 4), nn.Unflatten(1, (2, 2))),
    nn.Sequential(nn.Flatten(), nn.Linear(4, 1)),
    (3,),
)
T, K, B = 2, 3, 4
P = 3 * 4 + 4 + 5


def build(name: str, *optimisers: str) -> Engine:
    if name == "reference":
        return ReferenceEngine(GAME, fakes=5, reals=B, optimisers=optimisers or ("sgd",), dtype=torch.float32)
    return make(name)(Case("contract", GAME, fakes=5, reals=B, optimisers=optimisers or ("sgd",)))


def state(width: int = 0, **changes: Any) -> State:
    """Of T tasks, zero."""
    whole = torch.zeros(T, dtype=torch.int64)
    return replace(
        State(torch.zeros(T, width), whole, whole.new_zeros(T, 2), whole.new_zeros(T, 2), torch.zeros(T, 0)),
        **changes,
    )


@pytest.fixture(scope="module", params=["reference", "cpu", "torch"])
def engine(request: pytest.FixtureRequest) -> Engine:
    return build(request.param)


def arguments() -> dict[str, Any]:
    return {
        "phi": torch.zeros(T, P),
        "data": Data(torch.zeros(T, K, B, 2, 2)),
        "schedule": Schedule(torch.full((2,), 0.1)),
        "rng": Rng(0, torch.arange(T)),
    }


def with_data(**changes: Any) -> dict[str, Any]:
    return {"data": replace(arguments()["data"], **changes)}


def nan(*shape: int) -> Tensor:
    value = torch.zeros(*shape)
    value.view(-1)[-1] = float("nan")
    return value


I32 = torch.int32
ONES = torch.ones(T, 2, dtype=torch.int64)
BAD_ADAPT: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"phi": [0.0] * P}, TypeError, r"\[adapt\] phi: expected a torch.Tensor, got list"),
    ({"phi": torch.zeros(T, P + 1)}, ValueError, rf"phi: expected \[2, {P}\] or \[{P}\], got \[2, {P + 1}\]"),
    ({"phi": torch.zeros(T + 1, P)}, ValueError, r"phi: expected"),
    (
        {"phi": torch.zeros(T, P, dtype=torch.float64)},
        TypeError,
        r"phi: expected torch.float32, got torch.float64; convert",
    ),
    (
        {"phi": torch.zeros(T, P, device="meta")},
        ValueError,
        r"phi: expected a tensor on cpu, got one on meta",
    ),
    ({"data": torch.zeros(T, K, B, 2, 2)}, TypeError, r"data: expected Data, got Tensor"),
    (
        with_data(real=torch.zeros(T, K, B, 4)),
        ValueError,
        r"data.real: expected \[2, K, 4, 2, 2\], got \[2, 3, 4, 4\]",
    ),
    (with_data(real=torch.zeros(T, K, B + 1, 2, 2)), ValueError, r"data.real: expected \[2, K, 4, 2, 2\]"),
    (with_data(real=torch.zeros(T, 0, B, 2, 2)), ValueError, r"at least one inner step \(K >= 1\)"),
    (with_data(real=torch.zeros(T + 1, K, B, 2, 2)), ValueError, r"data.real: expected \[2, K"),
    (
        with_data(real=torch.zeros(T, K, B, 2, 2, dtype=torch.int64)),
        TypeError,
        r"data.real: expected torch.float32",
    ),
    (
        with_data(real=nan(T, K, B, 2, 2)),
        ValueError,
        r"data.real: expected finite numbers, got NaN or infinity",
    ),
    (with_data(real=nan(T, 1, B, 2, 2).expand(T, K, B, 2, 2)), ValueError, r"data.real: expected finite"),
    (with_data(real=nan(T, K, B, 2, 2) / 0), ValueError, r"data.real: expected finite"),
    (
        with_data(noise=torch.zeros(T, K, 4, 3)),
        ValueError,
        r"data.noise: expected \[2, 3, 5, 3\], got \[2, 3, 4, 3\]",
    ),
    (with_data(noise=nan(T, K, 5, 3)), ValueError, r"data.noise: expected finite"),
    (
        with_data(real=torch.zeros(9, 2, 2), indices=torch.zeros(T, K, B)),
        TypeError,
        r"data.indices: expected torch.int32",
    ),
    (
        with_data(real=torch.zeros(9, 2, 2), indices=torch.full((T, K, B), 9, dtype=I32)),
        ValueError,
        r"data.indices: expected rows of the pool, 0 to 8, got 9 to 9",
    ),
    (
        with_data(real=torch.zeros(9, 2, 2), indices=torch.full((T, K, B), -1, dtype=I32)),
        ValueError,
        r"got -1 to -1",
    ),
    (
        with_data(real=torch.zeros(9, 4), indices=torch.zeros(T, K, B, dtype=I32)),
        ValueError,
        r"a pool \[N, 2, 2\]",
    ),
    (
        with_data(real=torch.zeros(0, 2, 2), indices=torch.zeros(T, K, B, dtype=I32)),
        ValueError,
        r"a pool \[N, 2, 2\], N >= 1",
    ),
    (with_data(real=torch.zeros(9, 2, 2), indices=torch.zeros(T, 0, B, dtype=I32)), ValueError, r"K >= 1"),
    ({"schedule": torch.zeros(2)}, TypeError, r"schedule: expected a Schedule"),
    ({"schedule": Schedule(0.1)}, TypeError, r"schedule.rate: expected a torch.Tensor, got float"),
    (
        {"schedule": Schedule(torch.tensor([0.1, -0.1]))},
        ValueError,
        r"schedule.rate: expected numbers from 0, got -0.1",
    ),
    (
        {"schedule": Schedule(torch.tensor([0.1, float("inf")]))},
        ValueError,
        r"schedule.rate: expected finite",
    ),
    (
        {"schedule": Schedule(torch.zeros(3))},
        ValueError,
        r"schedule.rate: expected one of \[2\], \[3, 2\], \[2, 3, 2\]",
    ),
    ({"schedule": Schedule(torch.zeros(T, K, 1))}, ValueError, r"schedule.rate: expected one of"),
    (
        {"schedule": Schedule(torch.zeros(2), torch.ones(2))},
        TypeError,
        r"schedule.active: expected torch.bool",
    ),
    (
        {"schedule": Schedule(torch.zeros(2), torch.ones(K, 3, dtype=torch.bool))},
        ValueError,
        r"schedule.active",
    ),
    (
        {"schedule": Schedule(torch.zeros(2), scale=torch.ones(P - 1))},
        ValueError,
        rf"schedule.scale: expected \[{P}\]",
    ),
    ({"schedule": Schedule(torch.zeros(2), scale=nan(P))}, ValueError, r"schedule.scale: expected finite"),
    ({"rng": 3}, TypeError, r"rng: expected an Rng, got int"),
    ({"rng": Rng(-1, torch.arange(T))}, ValueError, r"rng.seed: expected a whole number from 0"),
    ({"rng": Rng(2**64, torch.arange(T))}, ValueError, r"rng.seed"),
    ({"rng": Rng(1.5, torch.arange(T))}, ValueError, r"rng.seed"),  # type: ignore[arg-type]
    ({"rng": Rng(0, torch.arange(T).int())}, TypeError, r"rng.tasks: expected torch.int64, got torch.int32"),
    ({"rng": Rng(0, torch.arange(T) - 1)}, ValueError, r"rng.tasks: expected numbers from 0, got -1"),
    ({"rng": Rng(0, torch.arange(0))}, ValueError, r"rng.tasks: expected \[T\] with at least one task"),
    ({"state": torch.zeros(T, P)}, TypeError, r"state: expected a State"),
    ({"state": state(P)}, ValueError, r"state.moments: expected \[2, 0\]"),
    ({"state": state(count=torch.zeros(T))}, TypeError, r"state.count: expected torch.int64"),
    (
        {"state": state(count=-torch.ones(T, dtype=torch.int64))},
        ValueError,
        r"state.count: expected numbers from 0",
    ),
    ({"state": state(updates=torch.zeros(T, 2))}, TypeError, r"state.updates: expected torch.int64"),
    ({"state": state(updates=ONES[:, 0])}, ValueError, r"state.updates: expected \[2, 2\], got \[2\]"),
    ({"state": state(updates=-ONES)}, ValueError, r"state.updates: expected numbers from 0, got -1"),
    (
        {"state": state(kind=ONES)},
        ValueError,
        r"state.kind: expected numbers from 0 to 0, of sgd, got 1 to 1",
    ),
    (
        {"schedule": Schedule(torch.zeros(2), kind=1)},
        ValueError,
        r"schedule.kind: expected numbers from 0 to 0, of sgd, got 1 to 1",
    ),
    (
        {"schedule": Schedule(torch.zeros(2), kind=-torch.ones(K, dtype=torch.int64))},
        ValueError,
        r"schedule.kind: expected numbers from 0 to 0, of sgd, got -1 to -1",
    ),
    (
        {"schedule": Schedule(torch.zeros(2), kind=torch.zeros(K))},
        TypeError,
        r"schedule.kind: expected torch.int64",
    ),
    (
        {"schedule": Schedule(torch.zeros(2), kind=torch.zeros(K + 1, dtype=torch.int64))},
        ValueError,
        r"schedule.kind: expected a number, \[3\] or \[2, 3\], got \[4\]",
    ),
    (
        {"schedule": Schedule(torch.zeros(2), kind="adam")},  # type: ignore[arg-type]
        TypeError,
        r"schedule.kind: expected a number or a torch.Tensor, got str",
    ),
]


@pytest.mark.parametrize(
    ("changes", "error", "message"), BAD_ADAPT, ids=[message[:40] for _, _, message in BAD_ADAPT]
)
def test_adapt(engine: Engine, changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        engine.adapt(**{**arguments(), **changes})


@pytest.mark.parametrize(
    ("cotangents", "options", "error", "message"),
    [
        (
            torch.zeros(T, P + 1),
            {},
            ValueError,
            rf"\[pullback\] cotangents: expected \[C, 2, {P}\] or \[2, {P}\], got",
        ),
        (torch.zeros(0, T, P), {}, ValueError, r"cotangents: expected"),
        (torch.zeros(T, P, dtype=torch.float64), {}, TypeError, r"cotangents: expected torch.float32"),
        (
            torch.zeros(2, T, P),
            {"keep": ["G"]},
            ValueError,
            r"keep: expected 2 entries, one for each cotangent, got 1",
        ),
        (torch.zeros(T, P), {"support": "X"}, ValueError, r"support: expected 'G', 'D' or 'GD', got 'X'"),
        (
            torch.zeros(T, P),
            {"state_cotangents": torch.zeros(T, P)},
            ValueError,
            r"expected None, as sgd has no moments",
        ),
    ],
)
def test_pullback(
    engine: Engine, cotangents: Tensor, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    saved = engine.adapt(**arguments(), keep=True).saved
    assert saved is not None
    with pytest.raises(error, match=message):
        engine.pullback(saved, cotangents, **options)


def test_pullback_of_what_is_not_saved(engine: Engine) -> None:
    nothing = engine.adapt(**arguments()).saved
    assert nothing is None
    other = build("reference" if engine.name != "reference" else "cpu").adapt(**arguments(), keep=True).saved
    for saved in (nothing, other, object()):
        with pytest.raises(
            TypeError, match=r"\[pullback\] saved: expected what this engine's adapt\(keep=True\) returned"
        ):
            engine.pullback(saved, torch.zeros(T, P))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["reference", "cpu", "torch"])
def test_moments(name: str) -> None:
    engine = build(name, "sgd", "adam")
    P2 = 2 * P
    saved = engine.adapt(**arguments(), keep=True).saved
    assert saved is not None
    with pytest.raises(ValueError, match=r"state_cotangents: expected"):
        engine.pullback(saved, torch.zeros(T, P), state_cotangents=torch.zeros(1, T, P))
    with pytest.raises(ValueError, match=rf"state.moments: expected \[2, {P2}\], got \[2, 0\]"):
        engine.adapt(**arguments(), state=state())
    initial = engine.initial_state(3)
    assert initial.moments.shape == (3, P2)
    assert not initial.moments.any()
    assert initial.count.tolist() == [0, 0, 0]
    assert initial.updates.tolist() == initial.kind.tolist() == [[0, 0]] * 3


CALLS: list[tuple[Callable[[Engine], Any], type[Exception], str]] = [
    (
        lambda e: e.gradients(torch.zeros(T, P), Data(torch.zeros(T, K, B, 2, 2)), Rng(0, torch.arange(T))),
        ValueError,
        r"\[gradients\] data.real: expected \[2, 4, 2, 2\], got \[2, 3, 4, 2, 2\]",
    ),
    (
        lambda e: e.generate(torch.zeros(T, P), torch.zeros(T, 7, 4)),
        ValueError,
        r"\[generate\] z: expected \[T, B, 3\]",
    ),
    (lambda e: e.generate(torch.zeros(T, P), torch.zeros(T, 0, 3)), ValueError, r"none of them 0"),
    (
        lambda e: e.generate(torch.zeros(T + 1, P), torch.zeros(T, 7, 3)),
        ValueError,
        r"\[generate\] phi: expected",
    ),
    (
        lambda e: e.generate_vjp(torch.zeros(T, P), torch.zeros(T, 7, 3), torch.zeros(T, 7, 4)),
        ValueError,
        r"\[generate_vjp\] cotangent: expected \[2, 7, 2, 2\], got \[2, 7, 4\]",
    ),
    (
        lambda e: e.noise(Rng(0, torch.arange(T)), 3, 4),
        ValueError,
        r"\[noise\] tasks: expected 2, the length of rng.tasks, got 3",
    ),
    (
        lambda e: e.noise(Rng(0, torch.arange(T)), T, 0),
        ValueError,
        r"\[noise\] n: expected a whole number from 1",
    ),
    (
        lambda e: e.noise(Rng(0, torch.arange(T)), T, 4, step=-1),
        ValueError,
        r"\[noise\] step: expected a whole number from 0",
    ),
    (
        lambda e: e.noise(Rng(0, torch.arange(T)), T, 4, stream=2**16 - 3),
        ValueError,
        r"\[noise\] stream: expected",
    ),
    (
        lambda e: e.distance("cosine", torch.zeros(1, 2, 2), torch.zeros(1, 2, 2)),
        ValueError,
        r"\[distance\] kind: expected one of energy",
    ),
    (
        lambda e: e.distance("energy", torch.zeros(1, 2, 2), torch.zeros(1, 2, 3)),
        ValueError,
        r"\[distance\] b: expected \[1, B2, 2\]",
    ),
    (
        lambda e: e.distance("energy", torch.zeros(1, 0, 2), torch.zeros(1, 2, 2)),
        ValueError,
        r"\[distance\] a: expected",
    ),
    (
        lambda e: e.distance("energy", torch.zeros(1, 2, 2), torch.zeros(2, 2, 2)),
        ValueError,
        r"\[distance\] b: expected",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), CALLS, ids=[message[:40] for _, _, message in CALLS])
def test_other_calls(
    engine: Engine, call: Callable[[Engine], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call(engine)


def test_engines_are_engines(engine: Engine) -> None:
    assert isinstance(engine, Engine)
    assert (engine.parameters, engine.generator_parameters) == (P, 16)
    assert (engine.latent, engine.sample, engine.fakes, engine.reals) == ((3,), (2, 2), 5, B)
    assert engine.device == torch.device("cpu")
    assert str(engine.plan).count("\n") >= 5
    assert (engine.optimisers, engine.moments) == (("sgd",), 0)
    assert engine.threads >= 1
    assert engine.gan is GAME


def test_results_need_no_gradient(engine: Engine) -> None:
    """Whatever requires a gradient when it comes in, what comes out is plain numbers."""
    x = arguments()
    x["phi"].requires_grad_()
    x["data"].real.requires_grad_()
    x["schedule"] = Schedule(
        torch.full((2,), 0.1, requires_grad=True), scale=torch.ones(P, requires_grad=True)
    )
    adapted = engine.adapt(**x, keep=True)
    assert adapted.saved is not None
    pulled = engine.pullback(adapted.saved, torch.zeros(T, P, requires_grad=True), rates=True)
    gradients = engine.gradients(x["phi"], Data(x["data"].real[:, 0]), x["rng"])
    z = torch.zeros(T, 3, 3, requires_grad=True)
    samples = engine.generate(x["phi"], z)
    back = engine.generate_vjp(x["phi"], z, torch.ones_like(samples))
    query = torch.zeros(T, B, 2, 2, requires_grad=True)
    meta = engine.meta_gradient(**x, objective=Objective(query, losses=(1.0, 1.0)))
    found = [
        meta.gradient,
        meta.value,
        adapted.phi,
        adapted.trace.loss_g,
        pulled.v0,
        pulled.d_rate,
        gradients.gradient,
        gradients.loss_d,
    ]
    found += [*engine.distance("energy", samples, samples), samples, back, adapted.state.moments]
    assert not any(value is None or value.requires_grad for value in found)


# ---- the GAN ----

NETWORK = nn.Sequential(nn.Linear(3, 3))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"generator": nn.Linear(3, 3)}, TypeError, r"generator: expected an nn.Sequential, got Linear"),
        ({"discriminator": None}, TypeError, r"discriminator: expected an nn.Sequential"),
        ({"latent": 3}, TypeError, r"latent: expected the shape of one z, such as \(32,\), got 3"),
        ({"latent": ()}, ValueError, r"latent"),
        ({"latent": (3, 0)}, ValueError, r"latent: expected whole numbers from 1"),
        ({"latent": (True,)}, ValueError, r"latent"),
        (
            {"loss": "bce"},
            ValueError,
            r"loss: expected one of nonsaturating, saturating, hinge, least_squares, wasserstein, relativistic, got 'bce'",
        ),
        ({"label_smoothing": 1.0}, ValueError, r"label_smoothing: expected a number in \[0, 1\), got 1.0"),
        ({"label_smoothing": float("nan")}, ValueError, r"label_smoothing"),
        (
            {"label_smoothing": 0.1, "loss": "hinge"},
            ValueError,
            r"label_smoothing: expected 0 with loss 'hinge'",
        ),
        ({"penalty": "r1"}, TypeError, r"\[GAN\] penalty: expected a pymgan.Penalty or None, got 'r1'"),
    ],
)
def test_gan(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments: dict[str, Any] = {"generator": NETWORK, "discriminator": NETWORK, "latent": (3,)}
    with pytest.raises(error, match=message):
        GAN(**{**arguments, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "gp"}, r"kind: expected one of r1, r2, wgan_gp, zero_centred, got 'gp'"),
        ({"kind": None}, r"kind: expected one of"),
        ({"weight": -1.0}, r"weight: expected a finite number from 0, got -1.0"),
        ({"weight": float("inf")}, r"weight: expected a finite number from 0, got inf"),
        ({"weight": float("nan")}, r"weight"),
        ({"weight": True}, r"weight"),
        ({"weight": "1"}, r"weight"),
        ({"every": 0}, r"every: expected a whole number of steps from 1, got 0"),
        ({"every": 2.0}, r"every"),
        ({"every": True}, r"every"),
        ({"every": 2**31}, r"every"),
    ],
)
def test_penalty(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=rf"\[Penalty\] {message}"):
        Penalty(**{"kind": "r1", **changes})


def test_parameters_as_a_vector() -> None:
    gan = GAN(nn.Sequential(nn.Linear(2, 3), nn.Tanh()), nn.Sequential(nn.Linear(3, 1, bias=False)), (2,))
    vector = gan.parameters_vector()
    both = [*gan.generator.parameters(), *gan.discriminator.parameters()]
    assert torch.equal(vector, torch.nn.utils.parameters_to_vector(both))
    assert vector.dtype == torch.float32
    new = torch.arange(12.0)
    gan.load_vector(new)
    assert torch.equal(gan.parameters_vector(), new)
    new += 1  # a copy: the networks do not follow
    assert torch.equal(gan.parameters_vector(), new - 1)
    assert all(parameter.requires_grad for parameter in both)
    with pytest.raises(ValueError, match=r"load_vector: expected phi \[12\], got \[13\]"):
        gan.load_vector(torch.zeros(13))
