"""Linear maps without parameters (csrc/fixed_map.h), and softmax over groups of features."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from .launch import block, cdiv, stride
from .lists import Lists

__all__ = ["fixed", "softmax"]


@triton.jit
def _fixed(
    x,  # [T, rows, elements]
    x_task,
    x_row,
    out,  # [T, rows, count]
    out_task,
    rows,
    count,
    starts,  # [count + 1]
    items,
    factors,  # float64
    longest,
    ROWS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    LINKS: tl.constexpr,
):
    task = tl.program_id(0).to(tl.int64)
    row = (tl.program_id(1) * ROWS + tl.arange(0, ROWS))[:, None, None]
    n = tl.program_id(2) * OUTPUTS + tl.arange(0, OUTPUTS)
    first = tl.load(starts + n, mask=n < count, other=0)
    length = tl.load(starts + n + 1, mask=n < count, other=0) - first
    acc = tl.zeros((ROWS, OUTPUTS, LINKS), tl.float64)
    for begin in range(0, longest, LINKS):
        link = begin + tl.arange(0, LINKS)[None, :]
        ok = link < length[:, None]
        item = tl.load(items + first[:, None] + link, mask=ok, other=0)[None, :, :]
        factor = tl.load(factors + first[:, None] + link, mask=ok, other=0.0)[None, :, :]
        ok = ok[None, :, :] & (row < rows)
        acc += factor * tl.load(x + task * x_task + row * x_row + item, mask=ok, other=0.0)
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    total = tl.sum(acc, 2).to(out.dtype.element_ty)
    at = row[:, None] * count + n[None, :]
    tl.store(out + task * out_task + at, total, mask=(row < rows)[:, None] & (n < count)[None, :])


def fixed(x: Tensor, links: Lists, out: Tensor) -> None:
    """out [T, rows, n] = the sums over each output's links of factor * x [T, rows, item].

    Sums are made in float64: a mean by factors of 1 / n would round every term.
    """
    tasks, rows, elements = x.shape
    longest = block(links.longest, 64, least=1)
    outputs = block(links.count, 1024 // longest, least=1)
    down = block(rows, 1024 // (longest * outputs), least=1)
    _fixed[(tasks, cdiv(rows, down), cdiv(links.count, outputs))](
        x, stride(x), elements, out, stride(out), rows, links.count, links.starts, links.items, links.factors,
        links.longest, ROWS=down, OUTPUTS=outputs, LINKS=longest,
    )  # fmt: skip


@triton.jit
def _softmax(
    x,  # [T, rows, elements]
    x_task,
    out,  # [T, rows, elements]
    out_task,
    rows,
    elements,
    starts,  # [groups + 1]
    items,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    task = tl.program_id(0).to(tl.int64)
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)[:, None]
    first = tl.load(starts + tl.program_id(2))
    length = tl.load(starts + tl.program_id(2) + 1) - first
    link = tl.arange(0, BLOCK)[None, :]
    at = row * elements + tl.load(items + first + link, mask=link < length, other=0)
    ok = (row < rows) & (link < length)
    y = tl.load(x + task * x_task + at, mask=ok, other=0.0)
    most = tl.max(tl.where(ok, y, float("-inf")), 1)[:, None]
    y = tl.where(ok, tl.exp(y - most), 0.0)
    tl.store(out + task * out_task + at, y / tl.sum(y, 1)[:, None], mask=ok)


def softmax(x: Tensor, groups: Lists, out: Tensor) -> None:
    """out = the softmax of x [T, rows, elements] over each group of elements."""
    tasks, rows, elements = x.shape
    size = block(groups.longest, 1 << 20)
    down = block(rows, max(1, 1024 // size), least=1)
    _softmax[(tasks, cdiv(rows, down), groups.count)](
        x, stride(x), out, stride(out), rows, elements, groups.starts, groups.items, ROWS=down, BLOCK=size,
    )  # fmt: skip
