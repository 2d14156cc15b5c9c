"""Samples and numbers of samples, element by element and row by row."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from .epilogue import Epilogue, finish
from .launch import block, cdiv, stride

__all__ = ["add", "elementwise", "rate", "row_dot", "spread"]


@triton.jit
def _elementwise(
    a0,  # [T, rows, columns], as all of these
    a0_task,
    b0,  # or None
    b0_task,
    scale,  # [T, rows] or None
    scale_task,
    a1,  # or None
    a1_task,
    ref,
    ref_task,
    q,
    q_task,
    g,
    g_task,
    pre,
    pre_task,
    out,
    out_task,
    elements,
    columns,
    APPLY: tl.constexpr,
    ACTIVATION: tl.constexpr,
    P0: tl.constexpr,
    P1: tl.constexpr,
    ORDER: tl.constexpr,
    BLOCK: tl.constexpr,
):
    task = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    ok = at < elements
    x = tl.load(a0 + task * a0_task + at, mask=ok, other=0.0)
    if b0 is not None:
        x *= tl.load(b0 + task * b0_task + at, mask=ok, other=0.0)
    if scale is not None:
        x *= tl.load(scale + task * scale_task + at // columns, mask=ok, other=0.0)
    if a1 is not None:
        x += tl.load(a1 + task * a1_task + at, mask=ok, other=0.0)
    finish(
        x, at, ok, task, ref, ref_task, q, q_task, g, g_task, pre, pre_task, out, out_task,
        APPLY, ACTIVATION, P0, P1, ORDER,
    )  # fmt: skip


def elementwise(
    a0: Tensor, b0: Tensor | None, scale: Tensor | None, a1: Tensor | None, epilogue: Epilogue
) -> None:
    """out = apply(scale * a0 b0 + a1); all [T, rows, columns], scale [T, rows]."""
    tasks, rows, columns = a0.shape
    size = block(rows * columns)
    _elementwise[(tasks, cdiv(rows * columns, size))](
        a0, stride(a0), b0, stride(b0), scale, stride(scale), a1, stride(a1), *epilogue.operands(),
        rows * columns, columns, **epilogue.constants(), BLOCK=size,
    )  # fmt: skip


def add(a: Tensor, out: Tensor) -> None:
    """out += a, both [T, n]."""
    elementwise(a[:, None], None, None, out[:, None], Epilogue(out[:, None]))


@triton.jit
def _row_dot(
    a,  # [T, rows, columns]
    a_task,
    b,  # [T, rows, columns]
    b_task,
    out,  # [T, rows]
    out_task,
    rows,
    columns,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    task = tl.program_id(0).to(tl.int64)
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    acc = tl.zeros((ROWS, COLUMNS), out.dtype.element_ty)
    for first in range(0, columns, COLUMNS):
        column = first + tl.arange(0, COLUMNS)
        ok = (row < rows)[:, None] & (column < columns)[None, :]
        at = row[:, None] * columns + column[None, :]
        x = tl.load(a + task * a_task + at, mask=ok, other=0.0)
        acc += x * tl.load(b + task * b_task + at, mask=ok, other=0.0)
    tl.store(out + task * out_task + row, tl.sum(acc, 1), mask=row < rows)


def row_dot(a: Tensor, b: Tensor, out: Tensor) -> None:
    """out [T, rows] = the sums over columns of a * b, [T, rows, columns]."""
    tasks, rows, columns = a.shape
    across = block(columns, 256)
    down = block(rows, 1024 // across, least=1)
    _row_dot[(tasks, cdiv(rows, down))](
        a, stride(a), b, stride(b), out, stride(out), rows, columns, ROWS=down, COLUMNS=across
    )


@triton.jit
def _spread(
    a,  # [T, rows] or None
    a_task,
    out,  # [T, rows, columns]
    out_task,
    elements,
    columns,
    BLOCK: tl.constexpr,
):
    task = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    ok = at < elements
    x = tl.full((BLOCK,), 1.0, out.dtype.element_ty)
    if a is not None:
        x = tl.load(a + task * a_task + at // columns, mask=ok, other=0.0)
    tl.store(out + task * out_task + at, tl.where(at % columns == 0, x, 0.0), mask=ok)


def spread(a: Tensor | None, out: Tensor) -> None:
    """Column 0 of out [T, rows, columns] = a [T, rows], or 1; the others 0."""
    tasks, rows, columns = out.shape
    size = block(rows * columns)
    _spread[(tasks, cdiv(rows * columns, size))](
        a, stride(a), out, stride(out), rows * columns, columns, BLOCK=size
    )


@triton.jit
def _rate(
    a,  # [T, rows] or None
    a_task,
    rates,  # [T]
    rates_task,
    active,  # [T]
    active_task,
    out,  # [T, rows]
    out_task,
    rows,
    BLOCK: tl.constexpr,
):
    task = tl.program_id(0).to(tl.int64)
    row = tl.arange(0, BLOCK)
    x = tl.full((BLOCK,), 1.0, out.dtype.element_ty)
    if a is not None:
        x = tl.load(a + task * a_task + row, mask=row < rows, other=0.0)
    moves = tl.load(active + task * active_task) != 0
    x = tl.where(moves, -tl.load(rates + task * rates_task) * x, 0.0)
    tl.store(out + task * out_task + row, x, mask=row < rows)


def rate(a: Tensor | None, rates: Tensor, active: Tensor, out: Tensor) -> None:
    """out [T, rows] = -rates [T] times a [T, rows] (or 1) where active (uint8 [T]), else 0."""
    tasks, rows = out.shape
    _rate[(tasks,)](
        a, stride(a), rates, stride(rates), active, stride(active), out, stride(out), rows,
        BLOCK=block(rows, 1 << 20),
    )  # fmt: skip
