"""``meta_gradient`` is `adapt`, the objective and `pullback` in one: the same bits, for every form of each."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from pymgan.contract import Engine, MetaGradient, Objective
from pymgan.meta_gradient import compose
from tests.engines import all_engines, make
from tests.oracle_cases import Case, Inputs, cases, draw, reference, take

TASKS = 6
OBJECTIVES: dict[str, dict[str, object]] = {
    "energy": {"samples": 5},
    "game": {"samples": 0, "losses": (1.0, 1.0)},
    "joint": {"samples": 5, "losses": (1.0, 1.0)},
    "teacher": {"samples": 5, "losses": (0.0, 1.0)},
    "weighted": {"samples": 3, "losses": (0.5, 2.0)},
    "generator": {"samples": 0, "losses": (0.7, 0.0)},
}


def some_cases() -> list[Case]:
    """The plainest, and every form of play, momentum, storage, mask, scale and pool that the battery has."""
    found: dict[object, Case] = {}
    for case in cases():
        found.setdefault((case.play, case.moments > 0, case.real), case)
        found.setdefault(case.optimisers, case)
        found.setdefault((case.storage, case.masks), case)
        found.setdefault(("scale", case.scale), case)
    return list({case.name: case for case in found.values()}.values())


def inputs_of(case: Case) -> Inputs:
    return take(draw(case), torch.arange(TASKS))


def objective_of(engine: Engine, name: str, *, parts: int = 1, drawn: bool = False) -> Objective:
    numbers = torch.Generator().manual_seed(5)
    query = torch.randn(TASKS, parts * engine.reals, *engine.sample, generator=numbers).to(engine.dtype)
    objective = Objective(query, **OBJECTIVES[name])  # type: ignore[arg-type]
    if drawn:
        return objective
    noise = torch.randn(TASKS, objective.noise_rows(engine), *engine.latent, generator=numbers)
    return dataclasses.replace(objective, noise=noise.to(engine.dtype))


def both(
    engine: Engine, x: Inputs, objective: Objective, *, order: int = 2, rates: bool = False
) -> tuple[MetaGradient, MetaGradient]:
    x = x.to(engine.dtype)
    arguments = (x.phi, x.data, x.schedule, x.rng, objective)
    return (
        engine.meta_gradient(*arguments, order=order, rates=rates),
        compose(engine, *arguments, order=order, rates=rates),
    )


def same(a: MetaGradient, b: MetaGradient) -> None:
    torch.testing.assert_close(a.trace.valid, b.trace.valid, rtol=0, atol=0)
    torch.testing.assert_close(
        a.value, b.value, rtol=1e-6, atol=0, equal_nan=True
    )  # losses are added in another order
    torch.testing.assert_close(a.gradient, b.gradient, rtol=0, atol=0)
    torch.testing.assert_close(a.trace.norm_d, b.trace.norm_d, rtol=0, atol=0)
    assert (a.d_rate is None) == (b.d_rate is None)
    if a.d_rate is not None and b.d_rate is not None:
        torch.testing.assert_close(a.d_rate, b.d_rate, rtol=0, atol=0)


FUSED = {name: of for name, of in all_engines().items() if name.startswith(("cpu", "cuda"))}


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("engine", FUSED)
def test_same_bits_for_every_objective(engine: str, name: str, order: int) -> None:
    made = FUSED[engine](some_cases()[0])
    for parts in (1, 3):
        objective = objective_of(made, name, parts=parts)
        same(*both(made, inputs_of(some_cases()[0]), objective, order=order))


@pytest.mark.parametrize("case", some_cases(), ids=lambda case: case.name)
@pytest.mark.parametrize("storage", ["all", "phi", "every:2", "nested"])
@pytest.mark.parametrize("engine", ["cpu-best-float32", "cuda-host-float32"])
def test_same_bits_for_every_inner_loop(engine: str, case: Case, storage: str) -> None:
    case = dataclasses.replace(case, storage=storage)
    made = make("cpu")(case) if engine.startswith("cpu") else FUSED[engine](case)
    for name in ("energy", "joint"):
        same(*both(made, inputs_of(case), objective_of(made, name), rates=name == "energy"))


@pytest.mark.parametrize("name", ["energy", "game", "weighted"])
def test_noise_is_drawn_as_the_contract_says(name: str) -> None:
    case = some_cases()[0]
    made = make("cpu")(case)
    same(*both(made, inputs_of(case), objective_of(made, name, parts=2, drawn=True)))


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("engine", ["cpu", "torch"])
def test_float64_agrees_with_the_oracle(engine: str, name: str) -> None:
    for case in some_cases():
        made, oracle = make(engine, dtype=torch.float64)(case), reference(case)
        x = inputs_of(case).to(torch.float64)
        arguments = (x.phi, x.data, x.schedule, x.rng, objective_of(made, name, parts=2))
        ours, truth = made.meta_gradient(*arguments), oracle.meta_gradient(*arguments)
        size = float(truth.gradient.norm()) + 1e-6
        assert float((ours.gradient - truth.gradient).norm()) <= 1e-9 * size, case.name
        torch.testing.assert_close(ours.value, truth.value, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("shared", [True, False])
def test_threads_change_no_bit(shared: bool) -> None:
    case = some_cases()[0]
    x = inputs_of(case)
    x = dataclasses.replace(x, phi=x.phi[0]) if shared else x
    results = []
    for threads in (1, 2, 3):
        made = make("cpu", threads=threads)(case)
        objective = objective_of(made, "joint")
        results.append(made.meta_gradient(x.phi, x.data, x.schedule, x.rng, objective))
        same(results[0], results[-1])


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("name", ["energy", "game"])
@pytest.mark.parametrize("engine", ["cpu", "torch", "reference"])
def test_a_failing_task_is_left_out(engine: str, name: str, order: int) -> None:
    case = some_cases()[0]
    made: Engine = reference(case, torch.float32) if engine == "reference" else make(engine)(case)
    x = inputs_of(case)
    objective = objective_of(made, name)
    assert objective.noise is not None
    phi, query = x.phi.clone(), objective.query.clone()
    phi[1] = math.nan  # fails in its inner loop
    left = [0, 2, 3, 4, 5]
    if name == "energy":
        query[4] = 3e38  # and this one in its objective
        left.remove(4)
    result = made.meta_gradient(
        phi, x.data, x.schedule, x.rng, dataclasses.replace(objective, query=query), order=order
    )
    assert result.trace.valid.nonzero().flatten().tolist() == left
    assert math.isnan(float(result.value[1]))
    fewer = take(x, torch.tensor(left))
    alone = made.meta_gradient(
        fewer.phi,
        fewer.data,
        fewer.schedule,
        fewer.rng,
        dataclasses.replace(objective, query=query[left], noise=objective.noise[left]),
        order=order,
    )
    torch.testing.assert_close(result.gradient, alone.gradient, rtol=1e-5, atol=1e-7)
    if engine == "cpu":
        assert torch.equal(result.gradient, alone.gradient)


def test_no_valid_task_gives_zeros() -> None:
    case = some_cases()[0]
    made = make("cpu")(case)
    x = inputs_of(case)
    result = made.meta_gradient(x.phi * math.nan, x.data, x.schedule, x.rng, objective_of(made, "joint"))
    assert not result.trace.valid.any()
    assert not result.gradient.any()


BAD: list[tuple[dict[str, object], dict[str, object], type[Exception], str]] = [
    ({}, {"order": 3}, ValueError, r"order: expected 1 or 2, got 3"),
    ({"samples": 0}, {}, ValueError, r"objective: expected samples or a loss with a weight"),
    ({"samples": -1}, {}, ValueError, r"objective.samples: expected a whole number from 0"),
    ({"losses": (1.0, -1.0)}, {}, ValueError, r"objective.losses: expected two finite numbers from 0"),
    ({"losses": (1.0, math.nan)}, {}, ValueError, r"objective.losses"),
    ({"stream": 2**16 - 3}, {}, ValueError, r"objective.stream"),
    (
        {"losses": (1.0, 1.0), "noise": None},
        {"rates": True},
        ValueError,
        r"rates: expected order 2 and no losses",
    ),
    ({}, {"rates": True, "order": 1}, ValueError, r"rates: expected order 2"),
    ({"query": [1.0]}, {}, TypeError, r"objective.query: expected a torch.Tensor, got list"),
    ({"noise": torch.zeros(1)}, {}, ValueError, r"objective.noise: expected"),
]


@pytest.mark.parametrize(("changes", "options", "error", "message"), BAD, ids=[b[-1] for b in BAD])
@pytest.mark.parametrize("engine", ["cpu", "torch", "reference"])
def test_bad_input(
    engine: str,
    changes: dict[str, object],
    options: dict[str, object],
    error: type[Exception],
    message: str,
) -> None:
    case = some_cases()[0]
    made: Engine = reference(case, torch.float32) if engine == "reference" else make(engine)(case)
    x = inputs_of(case)
    objective = dataclasses.replace(objective_of(made, "energy"), **changes)  # type: ignore[arg-type]
    with pytest.raises(error, match=message):
        made.meta_gradient(x.phi, x.data, x.schedule, x.rng, objective, **options)  # type: ignore[arg-type]


def test_queries_that_fill_no_batch() -> None:
    case = some_cases()[0]
    made = make("cpu")(case)
    x = inputs_of(case)
    objective = objective_of(made, "game")
    for query in (
        objective.query[:, 1:],
        objective.query[:, :0],
        objective.query[:-1],
        nan_in(objective.query),
    ):
        with pytest.raises(ValueError, match=r"\[meta_gradient\] (queries|objective.query): expected"):
            made.meta_gradient(x.phi, x.data, x.schedule, x.rng, dataclasses.replace(objective, query=query))


def nan_in(value: Tensor) -> Tensor:
    value = value.clone()
    value.view(-1)[0] = math.nan
    return value
