"""The cuda engine: on a device the battery, streams and graphs; without one what it launches, and what it says."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

import pymgan
from bench.cases import RING_MLP
from pymgan.contract import Data, Objective, Rng, Schedule
from pymgan.cuda_engine import CudaEngine
from pymgan.engine import engines
from tests.battery import check, fingerprint, measure
from tests.cuda_host import CudaHostEngine
from tests.engines import make
from tests.oracle_cases import Case, cases, draw, take

CASES = {case.name: case for case in cases()}
SM_80, SM_90 = 163 << 10, 227 << 10  # bytes of shared memory that a block may have
DEVICE = {info.name: info for info in engines()}["cuda"].available


def ring(shared: int, storage: str = "all") -> CudaHostEngine:
    """The bench's case, as a device with this much shared memory would have it."""
    generator, discriminator = RING_MLP.networks(0)
    gan = pymgan.GAN(generator, discriminator, latent=(RING_MLP.latent,))
    return CudaHostEngine(
        gan,
        fakes=RING_MLP.batch,
        reals=RING_MLP.batch,
        play="simultaneous",
        optimisers=("sgd",),
        momentum=0.9,
        eps=1e-8,
        storage=storage,
        shared=shared,
    )


def resident(engine: CudaHostEngine, tasks: int = 1) -> set[str]:
    """The buffers of a task that are in shared memory in a meta-step."""
    case = RING_MLP.altered(tasks=tasks)
    problem = case.problem(0)
    engine.meta_gradient(
        problem.phi,
        Data(problem.real, noise=problem.noise),
        Schedule(torch.tensor([0.01, 0.01])),
        Rng(0, torch.arange(tasks)),
        Objective(problem.query, samples=0, losses=(1.0, 1.0), noise=problem.query_noise),
    )
    return {name for name, _, shared in engine.occupancy()["buffers"] if shared}


def test_a_small_game_lives_in_shared_memory() -> None:
    """The inner loop's parameters too, where v will be."""
    assert resident(ring(SM_90)) == {"temps", "before the step", "v"}
    assert resident(ring(SM_80)) == {"temps", "before the step"}


def test_many_tasks_share_a_multiprocessor() -> None:
    """Two blocks of it, each with its temps."""
    assert resident(ring(SM_90), tasks=8) == {"temps"}


def test_a_team_needs_all_in_global_memory() -> None:
    """Without room for the temps nothing is shared: blocks of a team do not see each other's buffers."""
    assert not resident(ring(1 << 10))


def test_the_sizes_of_its_buffers_are_those_of_the_core() -> None:
    engine = ring(SM_90)
    with pytest.raises(RuntimeError, match="a call of this engine before"):
        engine.occupancy()
    resident(engine)
    report = engine.occupancy()
    assert (report["call"], report["tasks"]) == ("meta_gradient", 1)
    sizes = {name: size for name, size, _ in report["buffers"]}
    shared = sum(size for _, size, where in report["buffers"] if where)
    assert sizes["before the step"] >= 4 * engine.parameters
    assert shared <= SM_90


def test_what_it_says_where_it_is_not_available() -> None:
    info = {info.name: info for info in engines()}["cuda"]
    if info.available:
        pytest.skip("it is available")
    assert "nvcc" in info.reason or "no CUDA device" in info.reason
    with pytest.raises(ValueError, match="'cuda' is not available here"):
        make("cuda")(next(iter(CASES.values())))


def test_it_is_float32() -> None:
    case = next(iter(CASES.values()))
    with pytest.raises(
        NotImplementedError, match=r"expected torch\.float32 for the cuda engine, got torch\.float64"
    ):
        CudaEngine(
            case.gan,
            **case.inner_loop(),
            storage="all",
            betas=(0.9, 0.999),
            dtype=torch.float64,
            device=torch.device("cpu"),
        )


def test_it_imports_where_there_is_no_driver() -> None:
    """The CUDA runtime is linked statically and finds the driver when it is asked for a device."""
    code = "import pymgan._core as core; print(core.cuda_targets())"
    environment = {**os.environ, "LD_LIBRARY_PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(DEVICE, reason="there is a device")
def test_a_device_that_is_not_there_is_an_exception() -> None:
    import pymgan._core as core

    from pymgan.plan import compile_game, compile_plan

    case = next(iter(CASES.values()))
    loop = case.inner_loop()
    game = compile_game(case.gan, **loop, betas=(0.9, 0.999))
    with pytest.raises(RuntimeError, match=r"\[cuda\]"):
        core.CudaEngine(compile_plan(case.gan).core, game, "all", 0)


# ---- on a device ----


@pytest.mark.gpu
@pytest.mark.parametrize("engine", ["cuda"])
@pytest.mark.parametrize("case", CASES.values(), ids=lambda case: case.name)
def test_as_exact_as_torch(case: Case, engine: str) -> None:
    check(make(engine), case)


@pytest.mark.gpu
@pytest.mark.parametrize("tasks", [1, 40, 300])
def test_same_bits_from_call_to_call(tasks: int) -> None:
    """Whether a task has a block, or a team of them as few tasks do."""
    for name in ("random-01-nonsaturating-smooth", "conv-sound"):
        case = CASES[name]
        engine = make("cuda")(case)
        inputs = take(draw(case), torch.arange(tasks) % 16).on(engine.device)
        prints = {
            fingerprint({n: v.cpu() for n, v in measure(engine, case, inputs).items()}) for _ in range(3)
        }
        assert len(prints) == 1


@pytest.mark.gpu
def test_it_runs_on_the_current_stream_and_in_a_graph() -> None:
    generator, discriminator = RING_MLP.networks(0)
    gan = pymgan.GAN(generator, discriminator, latent=(RING_MLP.latent,))
    engine = pymgan.compile(gan, fakes=RING_MLP.batch, reals=RING_MLP.batch, engine="cuda")
    problem = replace(RING_MLP, tasks=7).problem(0)
    there = [
        t.to(engine.device)
        for t in (problem.phi, problem.real, problem.noise, problem.query, problem.query_noise)
    ]
    phi, real, noise, query, query_noise = there
    schedule = Schedule(torch.tensor([0.01, 0.01], device=engine.device))
    rng = Rng(0, torch.arange(7, device=engine.device))
    objective = Objective(query, samples=0, losses=(1.0, 1.0), noise=query_noise)

    def step() -> torch.Tensor:
        return engine.meta_gradient(phi, Data(real, noise=noise), schedule, rng, objective).gradient

    expected = step()
    aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        on_stream = step()
    torch.cuda.current_stream().wait_stream(aside)
    assert torch.equal(on_stream, expected)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    captured.zero_()
    graph.replay()
    assert torch.equal(captured, expected)
    phi.mul_(0.5)
    halved = step()
    graph.replay()
    assert torch.equal(captured, halved)
