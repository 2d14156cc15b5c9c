"""The energy distance and its cotangent: distances of all pairs first, then each sample's pull towards all others."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import block, cdiv
from .sums import add_partials

__all__ = ["energy_distance"]


@triton.jit
def _distances(
    x,  # [T, n + m, features]: a, then b
    pulls,  # [T, n + m, n + m]: share / distance
    partial,  # [T, parts], float64: shares of the value
    n,
    count,
    features,
    ACROSS: tl.constexpr,  # what a pair counts
    WITHIN_A: tl.constexpr,
    WITHIN_B: tl.constexpr,
    EPSILON: tl.constexpr,
    SAMPLES: tl.constexpr,
    FEATURES: tl.constexpr,
):
    task = tl.program_id(0).to(tl.int64)
    i, j = (
        tl.program_id(1) * SAMPLES + tl.arange(0, SAMPLES),
        tl.program_id(2) * SAMPLES + tl.arange(0, SAMPLES),
    )
    x += task * count * features
    square = tl.zeros((SAMPLES, SAMPLES), tl.float64)
    for first in range(0, features, FEATURES):
        l = first + tl.arange(0, FEATURES)  # noqa: E741
        x_i = tl.load(
            x + i[:, None] * features + l[None, :],
            mask=(i < count)[:, None] & (l < features)[None, :],
            other=0.0,
        )
        x_j = tl.load(
            x + j[:, None] * features + l[None, :],
            mask=(j < count)[:, None] & (l < features)[None, :],
            other=0.0,
        )
        apart = x_i[:, None, :] - x_j[None, :, :]
        square += tl.sum(apart * apart, 2)
    distance = tl.sqrt(square + EPSILON)
    # A pair of one sample with itself is left out; the matrix holds each other pair twice.
    i_in_a, j_in_a = (i < n)[:, None], (j < n)[None, :]
    one = tl.full([1, 1], 1.0, tl.float64)
    within = tl.where(i_in_a & j_in_a, WITHIN_A * one, WITHIN_B * one)
    share = tl.where(i_in_a != j_in_a, ACROSS * one, -within)
    ok = (i < count)[:, None] & (j < count)[None, :] & (i[:, None] != j[None, :])
    share = tl.where(ok, share, 0.0)
    part = tl.program_id(1) * tl.num_programs(2) + tl.program_id(2)
    parts = tl.num_programs(1) * tl.num_programs(2)
    tl.store(partial + task * parts + part, tl.sum(tl.sum(share * distance, 1), 0) * 0.5)
    at = i[:, None] * count + j[None, :]
    pull = (share / distance).to(pulls.dtype.element_ty)
    tl.store(pulls + task * count * count + at, pull, mask=(i < count)[:, None] & (j < count)[None, :])


@triton.jit
def _cotangent(
    x,  # [T, n + m, features]
    pulls,  # [T, n + m, n + m]
    out,  # [T, n, features]
    n,
    count,
    features,
    J: tl.constexpr,
    FEATURES: tl.constexpr,
):
    task = tl.program_id(0).to(tl.int64)
    i = tl.program_id(1)
    l = tl.program_id(2) * FEATURES + tl.arange(0, FEATURES)  # noqa: E741
    x += task * count * features
    own = tl.load(x + i * features + l, mask=l < features, other=0.0)
    acc = tl.zeros((J, FEATURES), out.dtype.element_ty)
    for first in range(0, count, J):
        j = first + tl.arange(0, J)
        other = tl.load(
            x + j[:, None] * features + l[None, :],
            mask=(j < count)[:, None] & (l < features)[None, :],
            other=0.0,
        )
        pull = tl.load(pulls + (task * count + i) * count + j, mask=j < count, other=0.0)
        acc += pull[:, None] * (own[None, :] - other)
    tl.store(out + (task * n + i) * features + l, tl.sum(acc, 0), mask=l < features)


def energy_distance(a: Tensor, b: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """(value [T] float64, cotangent of a) of samples a [T, n, features] and b [T, m, features]; csrc/cpu/distance.cpp."""
    (tasks, n, features), m = a.shape, b.shape[1]
    x = torch.cat((a, b), 1)
    count = n + m
    across = 2.0 / (n * m)
    within_a, within_b = (2.0 / (k * (k - 1)) if k > 1 else 0.0 for k in (n, m))
    size, wide = block(count, 16), block(features, 16)
    pulls = x.new_empty(tasks, count, count)
    grid = (tasks, cdiv(count, size), cdiv(count, size))
    partial = torch.empty(tasks, grid[1] * grid[2], 1, dtype=torch.float64, device=a.device)
    _distances[grid](
        x, pulls, partial, n, count, features, ACROSS=across, WITHIN_A=within_a, WITHIN_B=within_b,
        EPSILON=epsilon, SAMPLES=size, FEATURES=wide,
    )  # fmt: skip
    value = torch.empty(tasks, 1, dtype=torch.float64, device=a.device)
    add_partials(partial, value, add=False)
    cotangent = torch.empty_like(a, memory_format=torch.contiguous_format)
    wide = block(features, 128)
    _cotangent[(tasks, n, cdiv(features, wide))](x, pulls, cotangent, n, count, features, J=16, FEATURES=wide)
    return value[:, 0], cotangent
