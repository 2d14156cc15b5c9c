"""The counter-based noise: known answers, its definition, its distribution, and every engine's agreement."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pymgan.contract import Data, Rng
from pymgan.noise import normals, philox4x32
from tests.engines import all_engines
from tests.oracle_cases import cases, draw

ENGINES = all_engines()


# From Random123's kat_vectors, philox4x32 10.
@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_known_answers(counter: tuple[int, ...], key: tuple[int, ...], expected: tuple[int, ...]) -> None:
    assert tuple(int(word) for word in philox4x32(counter, key)) == expected


def test_box_muller_as_defined() -> None:
    seed, task, step, stream = 0x0123456789ABCDEF, (7 << 32) + 5, (3 << 32) + 2, 9
    found = normals(seed, task, step, stream, 10)
    for i in range(10):
        counter = (i // 4, 2, 3 ^ (9 << 16), 5)
        words = [int(w) for w in philox4x32(counter, (0x89ABCDEF, (0x01234567 + 7) & 0xFFFFFFFF))]
        first, second = (((words[2 * (i % 4 // 2) + j] >> 9) + 0.5) / 2**23 for j in (0, 1))
        turn = math.cos if i % 2 == 0 else math.sin
        assert found[i] == pytest.approx(
            math.sqrt(-2 * math.log(first)) * turn(2 * math.pi * second), rel=1e-12
        )


def test_prefixes_and_keys() -> None:
    base = normals(1, 2, 3, 0, 64)
    assert np.array_equal(normals(1, 2, 3, 0, 30), base[:30])
    others = [
        (2, 2, 3, 0),
        (1, 3, 3, 0),
        (1, 2, 4, 0),
        (1, 2, 3, 1),
        (1 + 2**40, 2, 3, 0),
        (1, 2 + 2**40, 3, 0),
        (1, 2, 3 + 2**40, 0),
    ]
    for other in others:
        assert abs(np.corrcoef(normals(*other, 64), base)[0, 1]) < 0.5


def test_distribution() -> None:
    x = np.concatenate([normals(11, task, 0, 0, 20000) for task in range(10)])
    assert abs(x.mean()) < 4 / math.sqrt(len(x))
    assert abs(x.var() - 1) < 4 * math.sqrt(2 / len(x))
    assert abs((x**4).mean() - 3) < 4 * math.sqrt(96 / len(x))
    assert abs(np.mean(x[:-1] * x[1:])) < 4 / math.sqrt(len(x))
    assert np.abs(x).max() < math.sqrt(2 * 24 * math.log(2))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", ["random-00-nonsaturating", "wide", "linear"])
def test_engines_draw_it(name: str, engine: str) -> None:
    case = next(case for case in cases() if case.name == name)
    built = ENGINES[engine](case)
    tasks = torch.tensor([0, 1, 2**31 + 3, 2**40 + 1], dtype=torch.int64)
    for seed, step, stream in ((0, 0, 0), (2**63 + 5, 2**33 + 7, 3), (2**64 - 1, 12, 2**16 - 4)):
        drawn = built.noise(Rng(seed, tasks), 4, 9, step=step, stream=stream)
        assert drawn.shape == (4, 9, *built.latent)
        assert drawn.dtype == built.dtype
        rows = [normals(seed, int(task), step, stream, drawn[0].numel()) for task in tasks]
        exact = torch.from_numpy(np.stack(rows)).view(drawn.shape)
        error = (drawn.double() - exact).square().mean().sqrt() / exact.square().mean().sqrt()
        assert error < 4 * torch.finfo(built.dtype).eps


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("play", ["simultaneous", "alternating"])
def test_inner_steps_use_it(engine: str, play: str) -> None:
    """Noise that is drawn and the same noise handed in give the same bits, from the state's count on."""
    case = next(case for case in cases() if case.play == play and case.steps == 3 and case.real == "repeat")
    built = ENGINES[engine](case)
    x = draw(case, 8).to(built.dtype)
    rng = Rng(5, x.rng.tasks + 100)
    steps = [
        torch.stack(
            [built.noise(Rng(5, rng.tasks[t : t + 1]), 1, built.fakes, step=int(n) + k)[0] for k in range(3)]
        )
        for t, n in enumerate(x.state.count)
    ]
    kept = [
        built.adapt(
            x.phi, Data(x.data.real, x.data.indices, noise), x.schedule, rng, state=x.state, keep=True
        )
        for noise in (None, torch.stack(steps))
    ]
    assert torch.equal(kept[0].phi, kept[1].phi)
    assert kept[0].saved is not None
    assert kept[1].saved is not None
    pulled = [built.pullback(k.saved, x.cotangents[0]).v0 for k in kept if k.saved is not None]
    assert torch.equal(*pulled)


def test_gradients_use_step_zero() -> None:
    case = cases()[0]
    for build in ENGINES.values():
        built = build(case)
        x = draw(case, 4).to(built.dtype)
        real, indices = (
            (x.data.real[:, 0], None) if x.data.indices is None else (x.data.real, x.data.indices[:, 0])
        )
        noise = built.noise(x.rng, 4, built.fakes)
        both = [built.gradients(x.phi, Data(real, indices, z), x.rng).gradient for z in (None, noise)]
        assert torch.equal(*both)
