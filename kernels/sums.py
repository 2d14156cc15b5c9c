"""Sums that span programs: partial sums are written side by side and added in their order."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import block, cdiv, stride


@triton.jit
def _add_partials(
    partial,  # [T, parts, n]
    out,  # [T, n]
    out_task,
    parts,
    n,
    sign,
    ADD: tl.constexpr,
    BLOCK: tl.constexpr,
):
    task = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    ok = at < n
    total = tl.zeros((BLOCK,), partial.dtype.element_ty)
    for part in range(parts):
        total += tl.load(partial + (task * parts + part) * n + at, mask=ok, other=0.0)
    total *= sign
    out += task * out_task + at
    if ADD:
        total += tl.load(out, mask=ok, other=0.0)
    tl.store(out, total, mask=ok)


def add_partials(partial: Tensor, out: Tensor, *, add: bool = True, sign: int = 1) -> None:
    """out [T, n] (+)= sign times the sum of partial [T, parts, n] over its parts."""
    tasks, parts, n = partial.shape
    size = block(n, 256)
    _add_partials[(tasks, cdiv(n, size))](partial, out, stride(out), parts, n, sign, ADD=add, BLOCK=size)


@triton.jit
def _partial_dots(
    a,  # [T, n]
    a_task,
    b,  # [T, n]
    b_task,
    scale,  # [n] or None: a factor of every element
    partial,  # [T, parts] float64
    parts,
    n,
    BLOCK: tl.constexpr,
):
    task = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    at = part * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(a + task * a_task + at, mask=at < n, other=0.0).to(tl.float64)
    x *= tl.load(b + task * b_task + at, mask=at < n, other=0.0)
    if scale is not None:
        x *= tl.load(scale + at, mask=at < n, other=0.0)
    tl.store(partial + task * parts + part, tl.sum(x, 0))


def partial_dots(a: Tensor, b: Tensor, scale: Tensor | None = None) -> Tensor:
    """Partial sums [T, parts, 1], float64, of the products of a [T, n] with b [T, n] (and scale [n])."""
    tasks, n = a.shape
    size = block(n, 2048)
    partial = torch.empty(tasks, cdiv(n, size), 1, dtype=torch.float64, device=a.device)
    _partial_dots[(tasks, partial.shape[1])](
        a, stride(a), b, stride(b), scale, partial, partial.shape[1], n, BLOCK=size
    )
    return partial


@triton.jit
def _weighted_sums(
    x,  # [C, T, n]
    weight,  # [T]
    counts,  # uint8 [T]
    out,  # [C, n]
    tasks,
    n,
    BLOCK: tl.constexpr,
):
    cotangent = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), out.dtype.element_ty)
    for task in range(tasks):
        ok = at < tl.where(tl.load(counts + task) != 0, n, 0)
        total += tl.load(weight + task) * tl.load(x + (cotangent * tasks + task) * n + at, mask=ok, other=0.0)
    tl.store(out + cotangent * n + at, total, mask=at < n)


def weighted_sums(x: Tensor, weight: Tensor, counts: Tensor) -> Tensor:
    """[C, n]: of x [C, T, n], the sum over the tasks that count (bool [T]) of each one's weight [T] times it, in their order."""
    cotangents, tasks, n = x.shape
    out, size = x.new_empty(cotangents, n), block(n, 256)
    _weighted_sums[(cotangents, cdiv(n, size))](
        x.contiguous(), weight.to(x).contiguous(), counts.to(torch.uint8), out, tasks, n, BLOCK=size
    )
    return out


def dots(a: Tensor, b: Tensor, scale: Tensor | None = None) -> Tensor:
    """[T], float64: the scalar product of a [T, n] and b [T, n] (and scale [n])."""
    out = torch.empty(len(a), 1, dtype=torch.float64, device=a.device)
    add_partials(partial_dots(a, b, scale), out, add=False)
    return out[:, 0]
