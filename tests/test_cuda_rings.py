"""The cuda engine's rings: weights in global memory come through shared memory, in bulk copies (csrc/cuda/ring.h)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from bench.cases import CASES
from pymgan import GAN
from tests.battery import fingerprint, measure
from tests.cuda_host import CudaHostEngine
from tests.engines import make
from tests.oracle_cases import Case, draw, take
from tests.traffic import SHARED, engine_of, shared_buffers

GLYPH_MLP = CASES["glyph-mlp"]


def game(*widths: int, norm: Callable[[nn.Module], nn.Module] = lambda layer: layer) -> GAN:
    """Whose weights are blocks of 16 x 16, several along a side, but for D's last."""
    latent, hidden, sample, first, second = widths
    generator = nn.Sequential(nn.Linear(latent, hidden), nn.SiLU(), nn.Linear(hidden, sample), nn.Tanh())
    layers = [norm(nn.Linear(sample, first)), nn.SiLU(), norm(nn.Linear(first, second)), nn.SiLU()]
    return GAN(generator, nn.Sequential(*layers, norm(nn.Linear(second, 1))), (latent,))


EVEN = [
    Case("even", game(16, 64, 48, 128, 32), fakes=20, reals=20, steps=2),
    Case("even-alternating", game(16, 64, 48, 128, 32), play="alternating", storage="phi"),
    Case("even-spectral", game(16, 32, 32, 48, 32, norm=spectral_norm), steps=2),
]


def engine_in(shared: int) -> Callable[[Case], CudaHostEngine]:
    """The engine on the host, with this much shared memory."""
    return lambda case: CudaHostEngine(case.gan, **case.inner_loop(), storage=case.storage, shared=shared)


def rooms(case: Case) -> list[int]:
    """Bytes of shared memory with which there are rings: beside temps in global memory, a team's or one block's."""
    sizes = [kib << 10 for kib in range(16, 160, 2)]
    found = [size for size in sizes if "rings" in shared_buffers(engine_in(size)(case), case.steps)]
    return [found[0], found[len(found) // 2], found[-1]]


def test_as_exact_as_the_cpu_engine() -> None:
    """In float32, which the oracle's battery holds to torch: where each number of a weight lies, spectral norms know, too."""
    case = EVEN[-1]
    inputs = take(draw(case), torch.arange(2))
    exact = measure(make("cpu", dtype=torch.float64)(case), case, inputs.to(torch.float64))
    there = measure(make("cpu")(case), case, inputs)
    here = measure(engine_in(rooms(case)[0])(case), case, inputs)
    for name, wanted in exact.items():
        off, allowed = (
            torch.linalg.vector_norm(found[name].double() - wanted.double()) for found in (here, there)
        )
        size = torch.linalg.vector_norm(wanted.double())
        assert float(off) <= 3 * float(allowed) + 1e-6 * float(size), name


@pytest.mark.parametrize("case", EVEN, ids=lambda case: case.name)
def test_the_same_bits_with_rings_and_without(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYMGAN_CUDA_BULK", raising=False)
    found = rooms(case)
    inputs = take(draw(case), torch.arange(2))
    prints = {fingerprint(measure(engine_in(shared)(case), case, inputs)) for shared in (1 << 10, *found)}
    monkeypatch.setenv("PYMGAN_CUDA_BULK", "0")
    prints.add(fingerprint(measure(engine_in(found[0])(case), case, inputs)))
    assert len(prints) == 1


def test_they_push_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """What else is in shared memory is what there is without them, and two blocks of a team still fit a multiprocessor."""
    for name, shared, tasks in (
        ("glyph-mlp", SHARED, 1),
        ("ring-mlp", SHARED, 1),
        ("ring-mlp", SHARED, 1000),
        ("ring-mlp", 163 << 10, 1),
        ("glyph-dcgan", SHARED, 1),
    ):
        case = CASES[name]
        monkeypatch.setenv("PYMGAN_CUDA_BULK", "0")
        without = shared_buffers(engine_of(case, shared), case.inner_steps, tasks)
        monkeypatch.setenv("PYMGAN_CUDA_BULK", "1")
        found = shared_buffers(engine_of(case, shared), case.inner_steps, tasks)
        rings = found.pop("rings", 0)
        assert found == without
        assert "rings" not in without
        if name == "glyph-mlp":
            assert rings > 0
            assert 2 * (rings + sum(found.values())) // 4 * 4 <= shared
    assert shared_buffers(engine_of(GLYPH_MLP, SHARED), GLYPH_MLP.inner_steps)["rings"] == 4 * 8 * (
        12 + 2 * 256
    )


def test_they_are_where_weights_in_global_memory_are_multiplied() -> None:
    """Not in a game that is resident whole, nor in one of convolutions alone."""
    for name in ("ring-mlp", "glyph-dcgan"):
        assert "rings" not in shared_buffers(engine_of(CASES[name], SHARED), 5)


def test_what_the_switch_says_to_other_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYMGAN_CUDA_BULK", "yes")
    with pytest.raises(RuntimeError, match="PYMGAN_CUDA_BULK: expected 0 or 1, got yes"):
        engine_of(CASES["ring-mlp"], SHARED)
