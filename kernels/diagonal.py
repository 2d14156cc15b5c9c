"""Products with numbers that a sample's elements share, w x + b, and the gradients of those numbers."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from .epilogue import Epilogue, finish
from .launch import block, cdiv, stride
from .lists import Lists
from .outer import Target, put

__all__ = ["diagonal", "diagonal_outer"]


@triton.jit
def _diagonal(
    a0,  # [T, rows, columns] or None
    a0_task,
    w0,  # [T, numbers]
    w0_task,
    bias,  # [T, numbers] or None
    bias_task,
    scale,  # [T, rows] or None
    scale_task,
    dot,  # [T, rows, columns] or None
    dot_task,
    dot_out,  # [T, rows]
    dot_out_task,
    a1,  # [T, rows, columns] or None
    a1_task,
    w1,  # [T, numbers]
    w1_task,
    of,  # [columns]
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
    rows,
    columns,
    APPLY: tl.constexpr,
    ACTIVATION: tl.constexpr,
    P0: tl.constexpr,
    P1: tl.constexpr,
    ORDER: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    task = tl.program_id(0).to(tl.int64)
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    row_ok = row < rows
    along = tl.zeros((ROWS, COLUMNS), out.dtype.element_ty)
    for first in range(0, columns, COLUMNS):
        column = first + tl.arange(0, COLUMNS)
        ok = row_ok[:, None] & (column < columns)[None, :]
        at = row[:, None] * columns + column[None, :]
        number = tl.load(of + column, mask=column < columns, other=0)[None, :]
        x = tl.zeros((ROWS, COLUMNS), out.dtype.element_ty)
        if a0 is not None:
            x = tl.load(a0 + task * a0_task + at, mask=ok, other=0.0)
            x *= tl.load(w0 + task * w0_task + number)
            if bias is not None:
                x += tl.load(bias + task * bias_task + number)
            if dot is not None:
                along += x * tl.load(dot + task * dot_task + at, mask=ok, other=0.0)
            if scale is not None:
                x *= tl.load(scale + task * scale_task + row, mask=row_ok, other=0.0)[:, None]
        if a1 is not None:
            y = tl.load(a1 + task * a1_task + at, mask=ok, other=0.0)
            x += y * tl.load(w1 + task * w1_task + number)
        finish(
            x, at, ok, task, ref, ref_task, q, q_task, g, g_task, pre, pre_task, out, out_task,
            APPLY, ACTIVATION, P0, P1, ORDER,
        )  # fmt: skip
    if dot is not None:
        dot_out += task * dot_out_task + row
        before = tl.load(dot_out, mask=row_ok, other=0.0)
        tl.store(dot_out, before + tl.sum(along, 1), mask=row_ok)


def diagonal(
    a0: Tensor | None,
    w0: Tensor | None,
    a1: Tensor | None,
    w1: Tensor | None,
    of: Tensor,
    epilogue: Epilogue,
    *,
    bias: Tensor | None = None,
    scale: Tensor | None = None,
    dot: Tensor | None = None,
    dot_out: Tensor | None = None,
) -> None:
    """out = apply(scale * (a0 w0 + bias) + a1 w1) element by element, and dot_out += rowsum(dot * (a0 w0 + bias)).

    Args:
        a0, a1, dot: [T, rows, columns]; w0, w1, bias: [T, numbers]; scale, dot_out: [T, rows].
        of: int32 [columns], each element's number.
        epilogue: its out is [T, rows, columns].
    """
    tasks, rows, columns = epilogue.out.shape
    across = block(columns, 256)
    down = block(rows, 1024 // across, least=1)
    _diagonal[(tasks, cdiv(rows, down))](
        a0, stride(a0), w0, stride(w0), bias, stride(bias), scale, stride(scale), dot, stride(dot),
        dot_out, stride(dot_out), a1, stride(a1), w1, stride(w1), of, *epilogue.operands(), rows, columns,
        **epilogue.constants(), ROWS=down, COLUMNS=across,
    )  # fmt: skip


@triton.jit
def _diagonal_outer(
    b0,  # [T, rows0, elements]
    b0_task,
    a0,  # [T, rows0, elements] or None: 1
    a0_task,
    b1,  # [T, rows1, elements] or None
    b1_task,
    a1,
    a1_task,
    out,
    out_task,
    theta,
    theta_task,
    scale,
    rate,
    rate_task,
    moves,
    moves_task,
    squares,
    starts,  # [numbers + 1]
    items,
    numbers,
    longest,
    rows0,
    rows1,
    elements,
    ACCUMULATE: tl.constexpr,
    NUMBERS: tl.constexpr,
    ITEMS: tl.constexpr,
):
    task = tl.program_id(0).to(tl.int64)
    n = tl.program_id(1) * NUMBERS + tl.arange(0, NUMBERS)
    first = tl.load(starts + n, mask=n < numbers, other=0)
    length = tl.load(starts + n + 1, mask=n < numbers, other=0) - first
    acc = tl.zeros((NUMBERS, ITEMS), out.dtype.element_ty)
    for begin in range(0, longest, ITEMS):
        link = begin + tl.arange(0, ITEMS)[None, :]
        ok = link < length[:, None]
        element = tl.load(items + first[:, None] + link, mask=ok, other=0)
        for row in range(rows0):
            at = row * elements + element
            x = tl.load(b0 + task * b0_task + at, mask=ok, other=0.0)
            if a0 is not None:
                x *= tl.load(a0 + task * a0_task + at, mask=ok, other=0.0)
            acc += x
        if b1 is not None:
            for row in range(rows1):
                at = row * elements + element
                x = tl.load(b1 + task * b1_task + at, mask=ok, other=0.0)
                acc += x * tl.load(a1 + task * a1_task + at, mask=ok, other=0.0)
    put(
        tl.sum(acc, 1), n, n < numbers, task, tl.program_id(1), tl.num_programs(1), out, out_task,
        theta, theta_task, scale, rate, rate_task, moves, moves_task, squares, ACCUMULATE,
    )  # fmt: skip


def diagonal_outer(
    b0: Tensor,
    a0: Tensor | None,
    b1: Tensor | None,
    a1: Tensor | None,
    elements: Lists,
    target: Target,
) -> Tensor | None:
    """The gradient of shared numbers: sums of b0 a0 + b1 a1 over rows and over each number's elements.

    Args:
        b0, a0: [T, rows0, columns], a0 None: 1 (the gradient of b); b1, a1: [T, rows1, columns] or None.
        elements: of each number.
        target: from the first number on.

    Returns:
        Of a fused update the partial sums [T, parts, 1] of the gradient's squares.
    """
    tasks, rows, columns = b0.shape
    items = block(elements.longest, 256, least=1)
    size = block(elements.count, 1024 // items, least=1)
    parts = cdiv(elements.count, size)
    squares = target.squares(parts)
    _diagonal_outer[(tasks, parts)](
        b0, stride(b0), a0, stride(a0), b1, stride(b1), a1, stride(a1), *target.operands(squares),
        elements.starts, elements.items, elements.count, elements.longest, rows,
        0 if b1 is None else b1.shape[1], columns, ACCUMULATE=target.accumulate, NUMBERS=size, ITEMS=items,
    )  # fmt: skip
    return squares
