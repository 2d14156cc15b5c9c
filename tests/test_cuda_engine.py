"""The cuda engine: on a device the battery, streams and graphs; without one what it launches, and what it says."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import pymgan
from bench.cases import GLYPH_MLP, RING_MLP
from bench.ours import build
from pymgan.contract import Data, Engine, Objective, Rng, Schedule
from pymgan.cuda_engine import CudaEngine
from pymgan.engine import engines
from tests.battery import check, fingerprint, measure
from tests.engines import make
from tests.face import tiny_run
from tests.oracle_cases import Case, cases, draw, take
from tests.traffic import SHARED, engine_of, row, shared_buffers, traffic
from tests.traffic import cases as traffic_cases

CASES = {case.name: case for case in cases()}
SM_80, SM_90 = 163 << 10, 227 << 10  # bytes of shared memory that a block may have
DEVICE = {info.name: info for info in engines()}["cuda"].available


def resident(shared: int, tasks: int = 1) -> set[str]:
    """The buffers of ring-mlp that lie in shared memory in a meta-step."""
    return set(shared_buffers(engine_of(RING_MLP, shared), RING_MLP.inner_steps, tasks))


def test_a_small_game_lives_in_shared_memory() -> None:
    """The inner loop's parameters too, where v will be."""
    assert resident(SM_90) == {"temps", "before the step", "v"}
    assert resident(SM_80) == {"temps", "before the step", "rings"}


def test_many_tasks_share_a_multiprocessor() -> None:
    """Two blocks of it, each with its temps."""
    assert resident(SM_90, tasks=1000) == {"temps"}


def test_a_team_has_the_temps_in_the_shared_memory_of_all() -> None:
    """And rings alone beside them: where that does not suffice either, all is in global memory."""
    assert resident(64 << 10) - {"rings"} == {"temps"}
    assert not resident(1 << 10)


def ring_gradient(engine: Engine, tasks: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """The meta-gradient of ring-mlp."""
    problem = RING_MLP.altered(tasks=tasks).problem()
    query, noise = problem.query.to(dtype), problem.query_noise.to(dtype)
    return engine.meta_gradient(
        problem.phi.to(dtype),
        Data(problem.real.to(dtype), noise=problem.noise.to(dtype)),
        Schedule(torch.tensor([0.01, 0.01], dtype=torch.float64)),
        Rng(0, torch.arange(tasks)),
        Objective(query, samples=0, losses=(1.0, 1.0), noise=noise),
    ).gradient


def test_bits_do_not_depend_on_where_buffers_lie() -> None:
    gradients = [
        ring_gradient(engine_of(RING_MLP, shared), 1) for shared in (1 << 10, 64 << 10, SM_80, SM_90)
    ]
    assert all(torch.equal(gradient, gradients[0]) for gradient in gradients)


def test_what_a_lower_precision_costs() -> None:
    """The figures of docs/cuda.md."""
    gan = pymgan.GAN(*RING_MLP.networks(RING_MLP.seed), latent=(RING_MLP.latent,))
    batch = RING_MLP.batch
    exact = pymgan.compile(gan, fakes=batch, reals=batch, engine="cpu", dtype=torch.float64)
    wanted = ring_gradient(exact, 4, torch.float64)

    def off(precision: str) -> float:
        found = ring_gradient(engine_of(RING_MLP, SM_90, precision), 4).double()
        return float(torch.linalg.vector_norm(found - wanted) / torch.linalg.vector_norm(wanted))

    assert off("float32") < 2e-6
    assert 1e-5 < off("tf32") < 5e-3
    assert 1e-3 < off("bf16") < 0.1


@pytest.mark.parametrize("name", traffic_cases())
def test_the_documented_traffic_is_that_of_its_lists(name: str) -> None:
    """docs/cuda.md: instructions, work, shared memory and global bytes of a meta-step."""
    case = traffic_cases()[name]
    page = Path(__file__).resolve().parent.parent.joinpath("docs", "cuda.md").read_text(encoding="utf-8")
    assert row(name, traffic(engine_of(case, SHARED), case.inner_steps)) in page


def test_what_it_reports_of_a_call() -> None:
    engine = engine_of(RING_MLP, SM_90)
    with pytest.raises(RuntimeError, match="a call of this engine before"):
        engine.occupancy()
    z = torch.zeros(2, 3, RING_MLP.latent)
    engine.generate(torch.zeros(engine.parameters), z)
    report = engine.occupancy()
    assert (report["call"], report["tasks"]) == ("generate", 2)
    sizes = {name: size for name, size, _ in report["buffers"]}
    assert sizes["phi"] >= 4 * engine.parameters
    assert sum(size for _, size, shared in report["buffers"] if shared) <= SM_90


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


def test_what_does_not_fit_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of(RING_MLP, SM_90)

    def full(elements: int) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(engine._pool, "take", full)
    with pytest.raises(
        RuntimeError, match=r"expected [\d,]+ bytes of device memory for the buffers of 2 tasks"
    ):
        engine.generate(torch.zeros(engine.parameters), torch.zeros(2, 3, RING_MLP.latent))


@pytest.mark.skipif(DEVICE, reason="there is a device")
def test_a_device_that_is_not_there_is_an_exception() -> None:
    import pymgan._core as core

    from pymgan.plan import compile_game, compile_plan

    case = next(iter(CASES.values()))
    loop = case.inner_loop()
    game = compile_game(case.gan, **loop, betas=(0.9, 0.999))
    with pytest.raises(RuntimeError, match=r"\[cuda\]"):
        core.CudaEngine(compile_plan(case.gan).core, game, "all", "float32", 0)


# ---- on a device ----


@pytest.mark.gpu
@pytest.mark.parametrize("engine", ["cuda"])
@pytest.mark.parametrize("case", CASES.values(), ids=lambda case: case.name)
def test_as_exact_as_torch(case: Case, engine: str) -> None:
    check(make(engine), case)


@pytest.mark.gpu
@pytest.mark.parametrize("shared", [0, 1024, 4096])
@pytest.mark.parametrize("name", ["random-01-nonsaturating-smooth", "conv-sound", "spectral-images"])
def test_as_exact_as_torch_wherever_temps_lie(
    name: str, shared: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In global memory, or in slices in a team's blocks: all cases are so small that one block has room for them."""
    monkeypatch.setenv("PYMGAN_CUDA_SHARED", str(shared))
    check(make("cuda"), CASES[name])


@pytest.mark.gpu
def test_same_bits_with_teams_and_rings(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = replace(GLYPH_MLP, tasks=2).problem(0)
    prints = set()
    for team, bulk in itertools.product((1, 2, 4, 8), (0, 1)):
        monkeypatch.setenv("PYMGAN_CUDA_TEAM", str(team))
        monkeypatch.setenv("PYMGAN_CUDA_BULK", str(bulk))
        step, _ = build(problem, "cuda", "meta", device="cuda")
        prints.add(fingerprint({"gradient": step()}))
    assert len(prints) == 1


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
@pytest.mark.parametrize("engine", ["cuda", "triton"])
def test_a_whole_training_run(engine: str, tmp_path: Path) -> None:
    """Near the cpu's: both start from the same parameters and see the same tasks and noise."""
    there = tiny_run(tmp_path / engine, engine=engine, device="cuda")
    here = tiny_run(tmp_path / "cpu", engine="cpu", device="cpu")
    off = torch.linalg.vector_norm(there.parameters.cpu() - here.parameters)
    assert float(off) < 1e-3 * float(torch.linalg.vector_norm(here.parameters))
    few = there.adapt(torch.randn(4, 2))
    assert bool(torch.isfinite(few.sample(5)).all())


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
