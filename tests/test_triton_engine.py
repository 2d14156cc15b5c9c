"""The triton engine against the float64 oracle, in Triton's interpreter where there is no device.

The interpreter takes a tenth of a millisecond for each operation of each program, so there an engine runs on one draw of a case,
and on some of the cases, which together have everything. `-m "exhaustive or not exhaustive"` runs them all; so does a device.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip("triton")

import pymgan.triton_engine as triton_engine
from pymgan.contract import Data, Engine, Objective
from pymgan.engine import engines
from tests.battery import check
from tests.engines import make
from tests.oracle_cases import Case, Inputs, cases, draw, take
from tests.parameters import leaves
from tests.triton_interpreter import hasten

DEVICE = torch.cuda.is_available()
pytestmark = [
    *([pytest.mark.gpu] if DEVICE else []),
    pytest.mark.skipif(
        not {info.name: info for info in engines()}["triton"].available, reason="no device and no interpreter"
    ),
]
hasten()

CASES = {case.name: case for case in cases()}
CHOSEN = (
    "random-01-nonsaturating-smooth",
    "random-04-least_squares-smooth",
    "random-11-wasserstein",
    "saturating-simultaneous",
    "conv-sound",
    "switching-8-simultaneous",
    "penalty-r1-conv",
    "penalty-r2-batch-1",
    "penalty-wgan_gp-leaky",
    "penalty-zero_centred-leaky-batch-1",
    "augment-all-relativistic-simultaneous",
    "layers-dense",
    "layers-parallel",
    "layers-shuffled",
    "layers-text",
    "spectral-images",
)


def marks(name: str) -> list[pytest.MarkDecorator]:
    """Of a case: the chosen ones have every kernel; on a device, too, compiling those of all of them takes minutes."""
    return [] if name in CHOSEN else [pytest.mark.exhaustive]


@pytest.mark.parametrize("engine", ["triton"])
@pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=name, marks=marks(name)) for name, case in CASES.items()],
)
def test_as_exact_as_torch(case: Case, engine: str) -> None:
    check(make(engine), case, None if DEVICE else 1)


def features(case: Case) -> set[str]:
    """What a case asks of an engine."""
    engine = make("torch")(case)
    program, halves = engine.program, (["GD", "G", "GD", "D"], ["GD", "GD", "G", "D"])  # type: ignore[attr-defined]
    procedures = [program.gradients(True)]
    for kind in dict.fromkeys(kind == "extragradient" for kind in case.optimisers):
        form = "extragradient" if kind else "sgd"
        procedures += [program.step_of(form), program.pull(*halves, True, case.scale, form)]
        procedures.append(program.pull(*halves, False, False, form))
    found = {f"storage {case.storage}", f"play {case.play}", f"real {case.real}", f"masks {case.masks}"}
    found |= {f"loss {case.gan.loss}", *(f"optimiser {kind}" for kind in case.optimisers)}
    found |= {f"augment {kind}" for kind in case.gan.augment}
    if case.gan.penalty is not None:
        found.add(f"penalty {case.gan.penalty.kind}")
    for procedure in procedures:
        for i in procedure.code:
            shape = " through a window" if i.window >= 0 else ""
            found.add(f"{i.op}{shape}{' adjoint' if i.adjoint else ''}{' with theta' if i.theta else ''}")
    return found | {
        type(layer).__name__ for net in (case.gan.generator, case.gan.discriminator) for layer in leaves(net)
    }


def test_the_chosen_cases_have_everything() -> None:
    missing = set().union(*map(features, CASES.values())) - set().union(
        *(features(CASES[name]) for name in CHOSEN)
    )
    assert not missing


@cache
def small() -> tuple[Case, Inputs]:
    """A game that draws and counts everything, and three tasks of it."""
    case = replace(CASES["penalty-zero_centred-leaky-batch-1"], steps=1, storage="phi")
    return case, take(draw(case), torch.arange(3))


def test_bits_depend_neither_on_the_run_nor_on_other_tasks() -> None:
    case, inputs = small()
    engine = make("triton")(case)

    def numbers(*tasks: int) -> list[torch.Tensor]:
        x = take(inputs, torch.tensor(tasks)).on(engine.device)
        adapted = engine.adapt(x.phi, x.data, x.schedule, x.rng, state=x.state, keep=True)
        assert adapted.saved is not None
        pulled = engine.pullback(adapted.saved, x.cotangents[0], rates=True)
        assert pulled.d_rate is not None
        return [adapted.phi, pulled.v0, pulled.d_rate]

    both, again, alone = numbers(2, 0), numbers(2, 0), numbers(0)
    for one, other, single in zip(both, again, alone, strict=True):
        assert torch.equal(one, other)
        assert torch.equal(one[1:], single)


def test_it_draws_what_the_others_draw() -> None:
    case, inputs = small()
    found = []
    for name in ("triton", "torch"):
        engine = make(name)(case)
        x = inputs.on(engine.device)
        drawn = replace(x, data=Data(x.data.real, x.data.indices))
        adapted = engine.adapt(drawn.phi, drawn.data, drawn.schedule, drawn.rng, state=drawn.state)
        found.append(adapted.phi.cpu())
        noise = engine.noise(drawn.rng, 3, 5, step=7, stream=2)
        found.append(noise.cpu())
    torch.testing.assert_close(found[0], found[2], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found[1], found[3], rtol=2e-7, atol=1e-7)


def test_a_bad_task_does_not_spoil_the_others() -> None:
    case, inputs = small()
    engine = make("triton")(case)
    x = take(inputs, torch.arange(2)).on(engine.device)
    bad = x.phi.clone()
    bad[1, 0] = torch.inf
    good, both = (
        engine.adapt(phi, x.data, x.schedule, x.rng, state=x.state, keep=True) for phi in (x.phi, bad)
    )
    assert both.trace.valid.tolist() == [True, False]
    assert torch.equal(good.phi[0], both.phi[0])
    assert both.saved is not None
    pulled = engine.pullback(both.saved, x.cotangents[0])
    assert not pulled.v0[1].any()
    assert torch.isfinite(pulled.v0).all()


def test_meta_gradient() -> None:
    case, inputs = small()
    found = []
    for name in ("triton", "torch"):
        engine = make(name)(case)
        x = take(inputs, torch.arange(2)).on(engine.device)
        objective = Objective(query=x.sample_cotangent.contiguous(), samples=3)
        found.append(engine.meta_gradient(x.phi, x.data, x.schedule, x.rng, objective))
    for one, other in ((found[0].gradient, found[1].gradient), (found[0].value, found[1].value)):
        torch.testing.assert_close(one.cpu(), other, rtol=1e-4, atol=1e-6)


class Replayed:
    """Stands for CUDA's graphs: a replay does again what was captured, on the same frame."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.engine = make("triton")(replace(CASES["linear"], storage="all"))
        self.calls: list[tuple[object, object]] = []
        self.replays = 0
        interpret = self.engine.interpret  # type: ignore[attr-defined]
        owner, aside = self, SimpleNamespace(wait_stream=lambda other: None)

        class Graph:
            def replay(self) -> None:
                owner.replays += 1
                interpret(*self.call)

        @contextlib.contextmanager
        def capture(graph: Graph, *, stream: object) -> Iterator[None]:
            assert stream is aside  # where the list was run before, of this engine's device
            yield
            graph.call = self.calls[-1]  # type: ignore[attr-defined]

        def recorded(procedure: object, frame: object) -> None:
            self.calls.append((procedure, frame))
            interpret(procedure, frame)

        for name, value in (
            ("Stream", lambda: aside),
            ("current_stream", lambda: SimpleNamespace(wait_stream=lambda other: None)),
            ("stream", lambda stream: contextlib.nullcontext()),
            ("CUDAGraph", Graph),
            ("graph", capture),
        ):
            monkeypatch.setattr(torch.cuda, name, value)
        monkeypatch.setattr(triton_engine, "INTERPRETED", False)
        monkeypatch.setattr(self.engine, "interpret", recorded)
        monkeypatch.setattr(self.engine, "_launching", lambda: np.errstate(all="ignore"))


@pytest.mark.skipif(DEVICE, reason="there is a device")
def test_a_replayed_graph_does_what_the_list_does(monkeypatch: pytest.MonkeyPatch) -> None:
    case = replace(CASES["linear"], storage="all")
    plain, inputs = make("triton")(case), draw(case)
    replayed = Replayed(monkeypatch)
    for tasks in ([0, 1], [3, 2]):
        x = take(inputs, torch.tensor(tasks))
        found = []
        for engine in (plain, replayed.engine):
            monkeypatch.setattr(triton_engine, "INTERPRETED", engine is plain)
            adapted = engine.adapt(x.phi, x.data, x.schedule, x.rng, state=x.state, keep=True)
            assert adapted.saved is not None
            pulled = engine.pullback(adapted.saved, x.cotangents[0], rates=True)
            samples = engine.generate(x.phi, x.sample_cotangent.new_ones(2, 3, *engine.latent))
            found.append((adapted.phi, adapted.trace.loss_d, pulled.v0, pulled.d_rate, samples))
        for one, other in zip(*found, strict=True):
            assert one is not None
            assert other is not None
            assert torch.equal(one, other)
    assert replayed.replays == 2 * (3 + 3 + 1)  # steps, pull-backs, samples


def child(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Python without Triton's interpreter."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        cwd=Path(__file__).resolve().parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.skipif(DEVICE, reason="there is a device")
def test_kernels_compile_for_a_device() -> None:
    done = child("-m", "tests.triton_compile", "linear")
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(DEVICE, reason="there is a device")
def test_without_a_device_the_reason_is_given() -> None:
    code = (
        "import pymgan, torch\n"
        "gan = pymgan.GAN(torch.nn.Sequential(torch.nn.Linear(2, 2)), torch.nn.Sequential(torch.nn.Linear(2, 1)), (2,))\n"
        "try:\n    pymgan.compile(gan, engine='triton')\nexcept ValueError as error:\n    print(error)\n"
    )
    done = child("-c", code)
    assert "engine 'triton' is not available here: no CUDA device" in done.stdout, done.stderr


@pytest.mark.parametrize(("precision", "most"), [("tf32", 5e-3), ("bf16", 5e-2)])
def test_lower_precisions(precision: str, most: float) -> None:
    """By choice. In Triton's interpreter, TF32 is float32."""
    case, x = small()

    def moved(engine: Engine) -> torch.Tensor:
        y = x.on(engine.device).to(engine.dtype)
        return (engine.adapt(y.phi, y.data, y.schedule, y.rng).phi.cpu().double() - x.phi.double()).flatten()

    wanted = moved(make("cpu", dtype=torch.float64)(case))
    off = torch.linalg.vector_norm(moved(make("triton", precision=precision)(case)) - wanted)
    off = off / torch.linalg.vector_norm(wanted)
    assert float(off) < most
    assert precision == "tf32" or float(off) > 1e-4
