"""Single Triton kernels on odd shapes, against the same in torch; in Triton's interpreter where there is no device."""

# ruff: noqa: E402
from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

triton = pytest.importorskip("triton")

import pymgan._core as core
import triton.language as tl

from pymgan.contract import OPTIMISERS
from pymgan.engine import engines
from pymgan.noise import normals as plain_normals
from pymgan.torch_formulas import evaluate
from tests.triton_formulas import KNOBS, PARTS, TERMS, generated
from tests.triton_interpreter import hasten

available = {info.name: info for info in engines()}["triton"].available
pytestmark = [
    *([pytest.mark.gpu] if torch.cuda.is_available() else []),
    pytest.mark.skipif(not available, reason="no device and no interpreter"),
    pytest.mark.filterwarnings(
        "ignore::RuntimeWarning"
    ),  # numpy, in the interpreter: of elements that are masked
]
hasten()

from pymgan._kernels import maps, noise, rows, sums
from pymgan._kernels.activations import activation
from pymgan._kernels.arithmetic import expm1, log1p, tanh
from pymgan._kernels.diagonal import diagonal, diagonal_outer
from pymgan._kernels.distance import energy_distance
from pymgan._kernels.epilogue import Epilogue
from pymgan._kernels.launch import fitting
from pymgan._kernels.lists import groups_of, lists_of
from pymgan._kernels.losses import loss_term, penalty_term
from pymgan._kernels.optimisers import direction_of, m0_of, m1_of, v0_of, v1_of, w_of
from pymgan._kernels.outer import Descent, Target, outer
from pymgan._kernels.product import Weight, product
from pymgan._kernels.windows import FLAT, WindowTables

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
T = 2
WIDTHS = (1, 2, 3, 17, 63)
SHAPES = [(1, 63, 1), (2, 1, 63), (3, 17, 2), (17, 3, 17), (63, 2, 3), (17, 63, 63)]


def close(found: Tensor, expected: Tensor, tolerance: float = 3e-6) -> None:
    torch.testing.assert_close(found.cpu().double(), expected.cpu().double(), rtol=tolerance, atol=tolerance)


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(*shape, generator=generator).to(DEVICE)


def apart(x: Tensor) -> Tensor:
    """The same numbers, in a buffer in which more lies between the tasks."""
    wide = torch.full((len(x), x[0].numel() + 5), math.nan, device=x.device)
    wide[:, 2:-3] = x.flatten(1)
    return wide[:, 2:-3].view(x.shape)


def flat_weight(n: int, k: int) -> Weight:
    return Weight(n, k, k, 1, torch.zeros(1, dtype=torch.int64, device=DEVICE))


# ---- products ----


@pytest.mark.parametrize("adjoint", [False, True])
@pytest.mark.parametrize(("batch", "n", "k"), SHAPES)
def test_product(batch: int, n: int, k: int, adjoint: bool) -> None:
    out_columns, depth = (k, n) if adjoint else (n, k)
    a0, a1 = apart(normal(T, batch, depth)), apart(normal(T, batch, depth, seed=1))
    w0, w1, b = normal(T, n, k), normal(T, n, k, seed=1), normal(T, out_columns, seed=2)
    scale, dot = normal(T, batch, seed=3), apart(normal(T, batch, out_columns, seed=4))
    ref, q, g = (apart(normal(T, batch, out_columns, seed=seed)) for seed in (5, 6, 7))
    out, pre, dot_out = (
        torch.full_like(dot, math.nan),
        torch.full_like(dot, math.nan),
        normal(T, batch, seed=8),
    )
    before = dot_out.clone()
    epilogue = Epilogue(out, "chain2", "tanh", (0.0, 0.0), 0, ref, q, g, pre)
    product(
        a0, apart(w0.flatten(1)), a1, apart(w1.flatten(1)), flat_weight(n, k), WindowTables(*FLAT, DEVICE), epilogue,
        adjoint=adjoint, bias=apart(b), scale=scale, dot=dot, dot_out=dot_out,
    )  # fmt: skip
    x0, x1, y0, y1 = (x.double() for x in (a0, a1, w0, w1))
    turn = (lambda w: w) if adjoint else (lambda w: w.transpose(1, 2))
    first = x0 @ turn(y0) + b.double()[:, None]
    total = scale.double()[..., None] * first + x1 @ turn(y1)
    close(pre, total, 1e-5)
    close(dot_out, before + (dot * first).sum(2), 2e-5)
    h = ref.double()
    close(out, (1 - h * h) * total - 2 * h * (1 - h * h) * q * g, 1e-5)


def windows(
    transposed: bool, stride: int, padding: int, size: int
) -> tuple[Any, WindowTables, WindowTables, Weight]:
    """A one-dimensional convolution 3 -> 5 with kernel 4: torch's layer, its windows and how its weight lies."""
    kind = torch.nn.ConvTranspose1d if transposed else torch.nn.Conv1d
    layer = kind(3, 5, 4, stride=stride, padding=padding).to(DEVICE)
    sites = layer(torch.zeros(1, 3, size, device=DEVICE)).shape[2]
    pairs = []
    for o, tap in itertools.product(range(sites), range(4)):
        at = o + padding - tap if transposed else o * stride - padding + tap
        inside = at % stride == 0 and 0 <= at // stride < size if transposed else 0 <= at < size
        pairs.append((at // stride if transposed else at) if inside else -1)
    back = [-1] * (size * 4)
    for (o, tap), seen in zip(itertools.product(range(sites), range(4)), pairs, strict=True):
        if seen >= 0:
            back[seen * 4 + tap] = o
    tap_at = torch.arange(4, device=DEVICE)
    weight = Weight(5, 3, 4, 20, tap_at) if transposed else Weight(5, 3, 12, 4, tap_at)
    return (
        layer,
        WindowTables(size, sites, 4, pairs, DEVICE),
        WindowTables(sites, size, 4, back, DEVICE),
        weight,
    )


@pytest.mark.parametrize("batch", [1, 17])
@pytest.mark.parametrize(
    ("transposed", "stride", "padding", "size"),
    [(False, 1, 0, 7), (False, 2, 1, 9), (True, 2, 1, 5), (True, 3, 0, 3)],
)
def test_product_through_a_window(transposed: bool, stride: int, padding: int, size: int, batch: int) -> None:
    layer, forward, back, weight = windows(transposed, stride, padding, size)
    x = normal(T, batch, 3, size).requires_grad_()
    y = layer(x.flatten(0, 1))
    cotangent = normal(*y.shape)
    of_x, of_w, of_b = torch.autograd.grad(y, (x, layer.weight, layer.bias), cotangent)

    def by_site(samples: Tensor) -> Tensor:
        return samples.detach().reshape(T, batch, *samples.shape[-2:]).transpose(2, 3).flatten(2)

    w, b = (p.detach().flatten().expand(T, -1).contiguous() for p in (layer.weight, layer.bias))
    out, delta = torch.empty_like(by_site(y)), by_site(cotangent)
    product(by_site(x), w, None, None, weight, forward, Epilogue(out), bias=b)
    close(out, by_site(y))
    of_input = torch.empty_like(by_site(x))
    product(delta, w, None, None, weight, back, Epilogue(of_input), adjoint=True)
    close(of_input, by_site(of_x))
    gradient = torch.zeros(T, w.shape[1] + 5, device=DEVICE)
    target = Target(gradient)
    outer(delta, by_site(x), None, None, weight, forward, target, target.part(w.shape[1]))
    close(gradient.sum(0), torch.cat((of_w.flatten(), of_b)), 2e-5)


def test_a_transposed_convolution_walks_through_the_taps_of_its_phase() -> None:
    _, forward, _, _ = windows(True, 2, 1, 8)
    _, steps = forward.walks(rows=16, tile=16)  # a tile a site
    assert steps.max() == 2  # of four


# ---- gradients ----


@pytest.mark.parametrize(("batch", "n", "k"), SHAPES)
def test_outer(batch: int, n: int, k: int) -> None:
    b0, a0 = apart(normal(T, batch, n)), apart(normal(T, batch, k, seed=1))
    b1, a1 = apart(normal(T, 3, n, seed=2)), apart(normal(T, 3, k, seed=3))
    flat = WindowTables(*FLAT, DEVICE)
    expected = b0.double().transpose(1, 2) @ a0.double() + b1.double().transpose(1, 2) @ a1.double()
    expected = torch.cat((expected.flatten(1), b0.double().sum(1)), 1)
    old = normal(T, n * k + n, seed=4)
    sum_of = Target(old.clone(), accumulate=True)
    outer(b0, a0, b1, a1, flat_weight(n, k), flat, sum_of, sum_of.part(n * k))
    close(sum_of.out, old + expected, 1e-5)
    rate, scale = torch.tensor([0.5, 0.3], device=DEVICE), normal(n * k + n, seed=5)
    moves = torch.tensor([0, 1], dtype=torch.uint8, device=DEVICE)
    moved = Target(torch.empty_like(old), descent=Descent(old, scale, rate, moves))
    partial = outer(b0, a0, b1, a1, flat_weight(n, k), flat, moved, moved.part(n * k))
    close(moved.out[0], old[0], 0)
    close(moved.out[1], old[1] - 0.3 * scale * expected[1], 1e-5)
    close(torch.cat(partial, 1).sum((1, 2)), expected.square().sum(1), 1e-5)


@pytest.mark.parametrize("columns", WIDTHS)
def test_diagonal(columns: int) -> None:
    numbers = min(columns, 4)
    of = [e % numbers for e in range(columns)]
    index = torch.tensor(of, device=DEVICE)
    a, delta, w, b = (
        normal(T, 3, columns),
        normal(T, 3, columns, seed=1),
        normal(T, numbers),
        normal(T, numbers, seed=1),
    )
    out, dot_out = torch.empty_like(a), torch.zeros(T, 3, device=DEVICE)
    diagonal(a, w, None, None, index.int(), Epilogue(out), bias=b, dot=delta, dot_out=dot_out)
    close(out, a * w[:, None, index] + b[:, None, index])
    close(dot_out, (out * delta).sum(2), 1e-5)
    gradient = torch.empty(T, numbers, device=DEVICE)
    diagonal_outer(delta, a, None, None, groups_of(of, DEVICE), Target(gradient))
    expected = torch.zeros(T, numbers, device=DEVICE).index_add(1, index, (a * delta).sum(1))
    close(gradient, expected, 1e-5)


# ---- maps, sums, noise, distances ----


@pytest.mark.parametrize("columns", WIDTHS)
def test_rows_and_maps(columns: int) -> None:
    x, y = apart(normal(T, 3, columns)), apart(normal(T, 3, columns, seed=1))
    out = torch.empty(T, 3, device=DEVICE)
    rows.row_dot(x, y, out)
    close(out, (x * y).sum(2), 1e-5)
    of = [e % 2 for e in range(columns)]
    soft = torch.empty_like(x)
    maps.softmax(x, groups_of(of, DEVICE), soft)
    for group in set(of):
        close(soft[..., group::2], x[..., group::2].softmax(2))
    links = [(0, e, 1 / columns) for e in range(columns)] + [(1, columns - 1, 2.0)]
    both = torch.empty(T, 3, 2, device=DEVICE)
    maps.fixed(x, lists_of(2, links, DEVICE), both)
    close(both, torch.stack((x.mean(2), 2 * x[..., -1]), 2))


@pytest.mark.parametrize("n", [1, 63, 5000])
def test_dots(n: int) -> None:
    a, b, scale = apart(normal(T, n)), apart(normal(T, n, seed=1)), normal(n)
    found = sums.dots(a, b, scale)
    assert found.dtype == torch.float64
    close(found, (a.double() * b.double() * scale.double()).sum(1), 1e-12)


@pytest.mark.parametrize(("tasks", "n"), [(1, 1), (7, 300)])
def test_weighted_sums_leave_out_who_does_not_count(tasks: int, n: int) -> None:
    x, weight, counts = normal(2, tasks, n), normal(tasks), torch.arange(tasks, device=DEVICE) % 3 != 1
    x[:, ~counts] = math.nan
    expected = torch.einsum("t,ctn->cn", weight[counts].double(), x[:, counts].double())
    close(sums.weighted_sums(x, weight, counts), expected)


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (20, 256), (33, 17), (5000, 3)])
def test_a_tile_is_no_larger_than_it_needs_to_be(rows: int, columns: int) -> None:
    tile = fitting(rows, columns)
    for size, of in ((tile.rows, rows), (tile.columns, columns)):
        assert size in (16, 32, 64)
        assert size >= min(of, 64)
        assert size == 16 or size < 2 * of


@pytest.mark.parametrize(("batch", "n", "k"), SHAPES)
def test_products_with_the_tiles_of_a_device(
    batch: int, n: int, k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pymgan._kernels.launch.INTERPRETED", False)
    x, w, delta = normal(T, batch, k), normal(T, n * k), normal(T, batch, n, seed=1)
    flat = WindowTables(*FLAT, DEVICE)
    out, gradient = torch.empty_like(delta), torch.zeros_like(w)
    product(x, w, None, None, flat_weight(n, k), flat, Epilogue(out))
    close(out, x.double() @ w.double().view(T, n, k).transpose(1, 2), 2e-5)
    outer(delta, x, None, None, flat_weight(n, k), flat, Target(gradient), None)
    close(gradient, (delta.double().transpose(1, 2) @ x.double()).flatten(1), 2e-5)


@pytest.mark.parametrize(
    ("seed", "task", "step", "stream"), [(0, 0, 0, 0), (2**64 - 1, 2**40 + 3, 2**33 + 1, 2**16 - 1)]
)
def test_noise(seed: int, task: int, step: int, stream: int) -> None:
    key = torch.tensor([[seed - (seed >> 63 << 64), task, step]], device=DEVICE)
    out = torch.empty(1, 3, 17, dtype=torch.float64, device=DEVICE)
    noise.normals(key, stream, out)
    close(out.flatten(), torch.from_numpy(plain_normals(seed, task, step, stream, 51)), 1e-13)


@pytest.mark.parametrize(("n", "m", "features"), [(1, 1, 1), (1, 3, 63), (17, 2, 3), (20, 19, 17)])
def test_energy_distance(n: int, m: int, features: int) -> None:
    a, b = normal(T, n, features).double().requires_grad_(), normal(T, m, features, seed=1).double()

    def mean(x: Tensor, y: Tensor, pairs: int) -> Tensor:
        apart = (x[:, :, None] - y[:, None]).square().sum(-1) + 1e-12
        off = (
            torch.ones(apart.shape[1:], device=DEVICE)
            if x is not y
            else 1 - torch.eye(x.shape[1], device=DEVICE)
        )
        return (apart.sqrt() * off).sum((1, 2)) / max(pairs, 1)

    expected = 2 * mean(a, b, n * m) - mean(a, a, n * (n - 1)) - mean(b, b, m * (m - 1))
    (slope,) = torch.autograd.grad(expected.sum(), a)
    value, cotangent = energy_distance(a.detach().float(), b.float(), 1e-12)
    assert value.dtype == torch.float64
    close(value, expected.detach(), 1e-5)
    close(cotangent, slope, 1e-5)


# ---- formulas ----


def test_formulas_are_those_of_the_core() -> None:
    """python -m tests.triton_formulas makes them anew."""
    for path, text in generated().items():
        assert path.read_text(encoding="utf-8") == text, path.name


@triton.jit
def _activations(x, y, KIND: tl.constexpr, ORDER: tl.constexpr, P0: tl.constexpr, P1: tl.constexpr):
    at = tl.arange(0, 64)
    tl.store(y + at, activation(tl.load(x + at), P0, P1, KIND, ORDER))


@pytest.mark.parametrize("order", range(4))
@pytest.mark.parametrize("name", core.Activation.__members__)
def test_activations(name: str, order: int) -> None:
    p0, p1 = (1e-3, 0.0) if name == "inverse_root" else (0.7, 1.5)
    x = torch.linspace(0.01 if name == "inverse_root" else -6, 6, 64, device=DEVICE)
    y = torch.empty_like(x)
    _activations[(1,)](x, y, KIND=name, ORDER=order, P0=p0, P1=p1)
    wide = x.cpu().double()
    variables = {
        "ref" if order else "x": wide,
        "p0": torch.tensor(p0).double(),
        "p1": torch.tensor(p1).double(),
    }
    expected = evaluate(core.activation_formula(core.Activation.__members__[name], order), variables)
    close(y, expected.expand_as(wide), 1e-5)


@triton.jit
def _losses(x, y, LOSS: tl.constexpr, TERM: tl.constexpr, ORDER: tl.constexpr, E: tl.constexpr):
    at = tl.arange(0, 64)
    tl.store(y + at, loss_term(tl.load(x + at), E, LOSS, TERM, ORDER))


@pytest.mark.parametrize("loss", core.Loss.__members__)
def test_losses(loss: str) -> None:
    x = torch.linspace(-5, 5, 64, device=DEVICE)
    for term, order in itertools.product(TERMS, range(3)):
        y = torch.empty_like(x)
        _losses[(1,)](x, y, LOSS=loss, TERM=term, ORDER=order, E=0.1)
        variables = {"s": x.cpu().double(), "e": torch.tensor(0.1).double()}
        close(y, evaluate(core.loss_formula(loss, term, order), variables).expand(64), 1e-6)


@triton.jit
def _penalties(x, y, KIND: tl.constexpr, ORDER: tl.constexpr):
    at = tl.arange(0, 64)
    tl.store(y + at, penalty_term(tl.load(x + at), 1e-12, KIND, ORDER))


@pytest.mark.parametrize("kind", ["r1", "r2", "wgan_gp", "zero_centred"])
def test_penalties(kind: str) -> None:
    x = torch.linspace(0.01, 9, 64, device=DEVICE)
    for order in range(3):
        y = torch.empty_like(x)
        _penalties[(1,)](x, y, KIND=kind, ORDER=order)
        variables = {"n": x.cpu().double(), "eps": torch.tensor(1e-12).double()}
        close(
            y,
            evaluate(core.penalty_formula(core.PenaltyKind.__members__[kind], order), variables).expand(64),
            1e-5,
        )


@triton.jit
def _optimisers(x, y, KIND: tl.constexpr):
    """x: [17, 64], all variables; y: [6, 64], all parts."""
    at = tl.arange(0, 64)
    f, m0, m1 = tl.load(x + at), tl.load(x + 64 + at), tl.load(x + 128 + at)
    a, v0, v1 = tl.load(x + 192 + at), tl.load(x + 256 + at), tl.load(x + 320 + at)
    k0, k1, k2 = tl.load(x + 384 + at), tl.load(x + 448 + at), tl.load(x + 512 + at)
    k3, k4, k5 = tl.load(x + 576 + at), tl.load(x + 640 + at), tl.load(x + 704 + at)
    k6, k7, k8 = tl.load(x + 768 + at), tl.load(x + 832 + at), tl.load(x + 896 + at)
    k9, k10 = tl.load(x + 960 + at), tl.load(x + 1024 + at)
    ALL: tl.constexpr = 255
    tl.store(
        y + at, direction_of(KIND, f, m0, m1, a, v0, v1, k0, k1, k2, k3, k4, k5, k6, k7, k8, k9, k10, ALL)
    )
    tl.store(y + 64 + at, m0_of(KIND, f, m0, m1, a, v0, v1, k0, k1, k2, k3, k4, k5, k6, k7, k8, k9, k10, ALL))
    tl.store(
        y + 128 + at, m1_of(KIND, f, m0, m1, a, v0, v1, k0, k1, k2, k3, k4, k5, k6, k7, k8, k9, k10, ALL)
    )
    tl.store(y + 192 + at, w_of(KIND, f, m0, m1, a, v0, v1, k0, k1, k2, k3, k4, k5, k6, k7, k8, k9, k10, ALL))
    tl.store(
        y + 256 + at, v0_of(KIND, f, m0, m1, a, v0, v1, k0, k1, k2, k3, k4, k5, k6, k7, k8, k9, k10, ALL)
    )
    tl.store(
        y + 320 + at, v1_of(KIND, f, m0, m1, a, v0, v1, k0, k1, k2, k3, k4, k5, k6, k7, k8, k9, k10, ALL)
    )


@pytest.mark.parametrize("kind", OPTIMISERS)
def test_optimisers(kind: str) -> None:
    names = ("F", "m0", "m1", "a", "v0", "v1", *KNOBS)
    x = normal(len(names), 64).abs() + 0.1
    y = torch.empty(len(PARTS), 64, device=DEVICE)
    _optimisers[(1,)](x, y, KIND=OPTIMISERS.index(kind))
    variables = dict(zip(names, x.cpu().double(), strict=True))
    for row, part in zip(y, PARTS, strict=True):
        close(row, evaluate(core.optimiser_formula(kind, part), variables).expand(64), 1e-5)


@triton.jit
def _functions(x, y):
    """x: [64]; y: [3, 64]."""
    at = tl.arange(0, 64)
    z = tl.load(x + at)
    tl.store(y + at, expm1(z))
    tl.store(y + 64 + at, log1p(tl.abs(z)))
    tl.store(y + 128 + at, tanh(z))


@pytest.mark.parametrize("scale", [1e-8, 1e-3, 1.0, 30.0, 200.0])
def test_functions_to_a_few_roundings(scale: float) -> None:
    x = torch.linspace(-scale, scale, 64, device=DEVICE)
    y = torch.empty(3, 64, device=DEVICE)
    _functions[(1,)](x, y)
    wide = x.cpu().double()
    # A device's exp is 2^x of x log2(e), rounded: a rounding of x, times x, and two of the result.
    tolerance = 1e-6 if DEVICE.type == "cpu" else 1e-6 + 0.5 * 2**-23 * min(scale, 89.0)
    for found, expected in zip(y.cpu(), (wide.expm1(), wide.abs().log1p(), wide.tanh()), strict=True):
        torch.testing.assert_close(found, expected.float(), rtol=tolerance, atol=0)
