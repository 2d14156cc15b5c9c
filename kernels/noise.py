"""The counter-based noise of pymgan/noise.py: Philox4x32-10 and Box-Muller, in float64 whatever the samples are."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from .launch import block, cdiv, stride

__all__ = ["draw", "mix", "normals"]


@triton.jit
def _round(c0, c1, c2, c3, k0, k1):
    """32-bit words in 64-bit ones, whose products fit."""
    low = tl.full([1], 0xFFFFFFFF, tl.uint64)
    p0, p1 = c0 * tl.full([1], 0xD2511F53, tl.uint64), c2 * tl.full([1], 0xCD9E8D57, tl.uint64)
    return (
        (p1 >> 32) ^ c1 ^ k0,
        p1 & low,
        (p0 >> 32) ^ c3 ^ k1,
        p0 & low,
        (k0 + tl.full([1], 0x9E3779B9, tl.uint64)) & low,
        (k1 + tl.full([1], 0xBB67AE85, tl.uint64)) & low,
    )


@triton.jit
def _uniform(word):
    return ((word >> 9).to(tl.float64) + 0.5) * 1.1920928955078125e-07


@triton.jit
def normal(key, i, STREAM: tl.constexpr):
    """Normals i of a key (seed, task, step) and a stream."""
    low = tl.full([1], 0xFFFFFFFF, tl.uint64)
    seed, task, step = (
        tl.load(key).to(tl.uint64),
        tl.load(key + 1).to(tl.uint64),
        tl.load(key + 2).to(tl.uint64),
    )
    c0 = (i // 4).to(tl.uint64)
    c1 = (step & low) + 0 * c0
    c2 = ((step >> 32) ^ tl.full([1], STREAM << 16, tl.uint64)) + 0 * c0
    c3 = (task & low) + 0 * c0
    k0 = (seed & low) + 0 * c0
    k1 = (((seed >> 32) + (task >> 32)) & low) + 0 * c0
    for _ in tl.static_range(10):
        c0, c1, c2, c3, k0, k1 = _round(c0, c1, c2, c3, k0, k1)
    second = i % 4 >= 2
    radius = tl.sqrt(-2.0 * tl.log(_uniform(tl.where(second, c2, c0))))
    angle = _uniform(tl.where(second, c3, c1)) * 6.283185307179586
    return radius * tl.where(i % 2 == 0, tl.cos(angle), tl.sin(angle))


@triton.jit
def uniform(key, i, STREAM: tl.constexpr):
    """Uniform numbers in [0, 1], the normals' distribution function at them."""
    return 0.5 + 0.5 * tl.erf(normal(key, i, STREAM) * 0.7071067811865476)


@triton.jit
def _normals(
    key,  # [T, 3]
    out,  # [T, rows, sites * channels]
    out_task,
    elements,
    sites,
    channels,
    FACTOR: tl.constexpr,
    STREAM: tl.constexpr,
    BLOCK: tl.constexpr,
):
    task = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    features = sites * channels
    row, element = at // features, at % features
    site, channel = element // channels, element % channels
    z = normal(key + task * 3, row * features + channel * sites + site, STREAM)
    z = FACTOR * z.to(out.dtype.element_ty)
    tl.store(out + task * out_task + at, z, mask=at < elements)


def normals(key: Tensor, stream: int, out: Tensor, sites: int = 1, factor: float = 1.0) -> None:
    """out [T, rows, features] = factor times the normals of a key int64 [T, 3] and a stream, in torch's order of a sample.

    With several sites, a sample of `out` has its sites one after the other.
    """
    tasks, rows, features = out.shape
    size = block(rows * features, 256)
    _normals[(tasks, cdiv(rows * features, size))](
        key, out, stride(out), rows * features, sites, features // sites, FACTOR=factor,
        STREAM=stream, BLOCK=size,
    )  # fmt: skip


@triton.jit
def _mix(
    key,  # [T, 3]
    u,  # [T, rows] or None
    u_task,
    rest,  # [T, rows] or None
    rest_task,
    rows,
    STREAM: tl.constexpr,
    BLOCK: tl.constexpr,
):
    task = tl.program_id(0).to(tl.int64)
    row = tl.arange(0, BLOCK)
    drawn = uniform(key + task * 3, row, STREAM)
    if u is not None:
        tl.store(u + task * u_task + row, drawn.to(u.dtype.element_ty), mask=row < rows)
    if rest is not None:
        kept = drawn.to(rest.dtype.element_ty)
        tl.store(rest + task * rest_task + row, 1.0 - kept, mask=row < rows)


def mix(key: Tensor, stream: int, u: Tensor | None, rest: Tensor | None, rows: int) -> None:
    """u [T, rows] = uniform numbers, rest = 1 - u."""
    _mix[(len(key),)](key, u, stride(u), rest, stride(rest), rows, STREAM=stream, BLOCK=block(rows, 1 << 20))


@triton.jit
def _draw(
    key,  # [T, 3]
    choices,  # [columns], float64: how many; 0: any number around 0
    least,  # [columns], float64
    out,  # [T, fakes + reals, columns]
    out_task,
    elements,
    columns,
    fakes,
    STREAM: tl.constexpr,
    BLOCK: tl.constexpr,
):
    task = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    ok = at < elements
    row, column = at // columns, at % columns
    u = uniform(key + task * 3, tl.where(row < fakes, row, row - fakes) * columns + column, STREAM)
    count = tl.load(choices + column, mask=ok, other=1.0)
    one_of = tl.minimum(tl.floor(u * count), count - 1.0) + tl.load(least + column, mask=ok, other=0.0)
    number = tl.where(count == 0.0, u - 0.5, one_of)
    tl.store(out + task * out_task + at, number.to(out.dtype.element_ty), mask=ok)


def draw(key: Tensor, stream: int, choices: Tensor, least: Tensor, out: Tensor, fakes: int) -> None:
    """out [T, fakes + reals, columns] = how samples are augmented: number i is of fake i and of real i.

    A column has `choices` whole numbers from `least` on, or for 0 choices any number in (-1/2, 1/2).
    """
    tasks, rows, columns = out.shape
    _draw[(tasks,)](
        key, choices, least, out, stride(out), rows * columns, columns, fakes, STREAM=stream,
        BLOCK=block(rows * columns, 1 << 20),
    )  # fmt: skip
