"""out = apply(scale * (a0 B0 + bias) + a1 B1): matrix products with weights, flat or through a window, one grid for all tasks.

A product through a window is an implicit matrix product: its rows are pairs of an output site and a sample, and what such a
row sees is gathered tap by tap from the samples as they lie. No buffer holds what windows see.
"""

from __future__ import annotations

from dataclasses import dataclass

import triton
import triton.language as tl
from torch import Tensor

from .arithmetic import multiply
from .epilogue import Epilogue, finish
from .launch import PRECISION, Blocks, Tuned, cdiv, stride
from .sums import add_partials
from .windows import WindowTables

__all__ = ["Weight", "product"]


@dataclass(frozen=True)
class Weight:
    """How a weight W [n, taps, k] lies in torch's flat vector, from its first element on.

    Attributes:
        n, k: outputs and inputs of a tap.
        by_n, by_k: elements between outputs, and between inputs.
        tap_at: int64 [taps], where each tap begins.
        bias_sites: the output's sites, if each has a bias of its own, else 1.
    """

    n: int
    k: int
    by_n: int
    by_k: int
    tap_at: Tensor
    bias_sites: int = 1


@triton.jit
def _times(
    acc,  # [TILE, COLUMNS]
    a,  # [rows, in_sites * depth], of the task
    w,  # the task's weight
    site,  # [TILE], of the output
    row,  # [TILE]
    row_ok,
    column,  # [COLUMNS]
    column_ok,
    sees,  # [sites, taps]
    walk,  # the tile's taps
    steps,
    tap_at,  # [taps]
    taps,
    a_row,
    depth,
    by_depth,
    by_column,
    DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """acc + a W over what the rows see."""
    for step in range(steps):
        tap = tl.load(walk + step)
        seen = tl.load(sees + site * taps + tap, mask=row_ok, other=-1)
        inside = row_ok & (seen >= 0)
        w_tap = w + tl.load(tap_at + tap)
        for first in range(0, depth, DEPTH):
            k = first + tl.arange(0, DEPTH)
            x = tl.load(
                a + (row * a_row + seen * depth)[:, None] + k[None, :],
                mask=inside[:, None] & (k < depth)[None, :],
                other=0.0,
            )
            y = tl.load(
                w_tap + k[:, None] * by_depth + column[None, :] * by_column,
                mask=(k < depth)[:, None] & column_ok[None, :],
                other=0.0,
            )
            acc = multiply(x, y, acc, PRECISION)
    return acc


# Sizes that no address is a multiple of need no kernel of their own.
@triton.jit(do_not_specialize=["rows", "sites", "taps", "bias_sites"])
def _product(
    a0,  # [T, rows, in_sites * depth] or None
    a0_task,
    b0,  # [T, ...] the weight's elements
    b0_task,
    a1,  # as a0 and b0, or None
    a1_task,
    b1,
    b1_task,
    bias,  # [T, ...] the bias's elements, or None
    bias_task,
    scale,  # [T, rows] or None
    scale_task,
    dot,  # [T, rows, sites * columns] or None
    dot_task,
    partial,  # [T, column tiles * sites, rows]: the sums of dot * (a0 B0 + bias)
    ref,
    ref_task,
    q,
    q_task,
    g,
    g_task,
    pre,
    pre_task,
    out,  # [T, rows, sites * columns]
    out_task,
    sees,  # [sites, taps]
    order,  # [sites]
    walks,  # [tiles, taps]
    walk_steps,  # [tiles]
    tap_at,  # [taps]
    rows,
    sites,
    taps,
    columns,
    depth,
    a_row,
    by_depth,
    by_column,
    bias_sites,
    APPLY: tl.constexpr,
    ACTIVATION: tl.constexpr,
    P0: tl.constexpr,
    P1: tl.constexpr,
    ORDER: tl.constexpr,
    TILE: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
):
    task = tl.program_id(0).to(tl.int64)
    tile = tl.program_id(1)
    both = tile * TILE + tl.arange(0, TILE)  # in order: (site, row)
    row_ok = both < sites * rows
    site = tl.load(order + both // rows, mask=row_ok, other=0)
    row = both % rows
    column = tl.program_id(2) * COLUMNS + tl.arange(0, COLUMNS)
    column_ok = column < columns
    ok = row_ok[:, None] & column_ok[None, :]
    at = (row * (sites * columns) + site * columns)[:, None] + column[None, :]
    walk, steps = walks + tile * taps, tl.load(walk_steps + tile)

    acc = tl.zeros((TILE, COLUMNS), out.dtype.element_ty)
    if a0 is not None:
        acc = _times(
            acc, a0 + task * a0_task, b0 + task * b0_task, site, row, row_ok, column, column_ok, sees,
            walk, steps, tap_at, taps, a_row, depth, by_depth, by_column, DEPTH, PRECISION,
        )  # fmt: skip
        if bias is not None:
            bias_at = column[None, :] * bias_sites + tl.where(bias_sites > 1, site, 0)[:, None]
            acc += tl.load(bias + task * bias_task + bias_at, mask=ok, other=0.0)
        if dot is not None:
            along = acc * tl.load(dot + task * dot_task + at, mask=ok, other=0.0)
            parts = tl.num_programs(2) * sites
            part = tl.program_id(2) * sites + both // rows
            tl.store(partial + (task * parts + part) * rows + row, tl.sum(along, 1), mask=row_ok)
        if scale is not None:
            acc *= tl.load(scale + task * scale_task + row, mask=row_ok, other=0.0)[:, None]
    if a1 is not None:
        acc = _times(
            acc, a1 + task * a1_task, b1 + task * b1_task, site, row, row_ok, column, column_ok, sees,
            walk, steps, tap_at, taps, a_row, depth, by_depth, by_column, DEPTH, PRECISION,
        )  # fmt: skip
    finish(
        acc, at, ok, task, ref, ref_task, q, q_task, g, g_task, pre, pre_task, out, out_task,
        APPLY, ACTIVATION, P0, P1, ORDER,
    )  # fmt: skip


_tuned = Tuned()


def product(
    a0: Tensor | None,
    b0: Tensor | None,
    a1: Tensor | None,
    b1: Tensor | None,
    weight: Weight,
    window: WindowTables,
    epilogue: Epilogue,
    *,
    adjoint: bool = False,
    bias: Tensor | None = None,
    scale: Tensor | None = None,
    dot: Tensor | None = None,
    dot_out: Tensor | None = None,
    precision: str = PRECISION,
) -> None:
    """out = apply(scale * (a0 B0 + bias) + a1 B1), and dot_out += the sum over columns of dot * (a0 B0 + bias).

    Args:
        a0, a1: [T, rows, in_sites * depth].
        b0, b1: [T, elements], parameter-shaped values from the weight's first element on.
        weight: how W lies there.
        window: what output sites see; with `adjoint`, the window seen from the input.
        epilogue: its out is [T, rows, sites * columns].
        adjoint: B is W (depth n, columns k), not its transpose (depth k, columns n).
        bias: [T, elements] from the bias's first element on.
        scale: [T, rows].
        dot: [T, rows, sites * columns]; dot_out: [T, rows].
        precision: of the products.
    """
    out = epilogue.out
    tasks, rows, _ = out.shape
    depth, columns, by_depth, by_column = weight.k, weight.n, weight.by_k, weight.by_n
    if adjoint:
        depth, columns, by_depth, by_column = columns, depth, by_column, by_depth

    def launch(blocks: Blocks) -> None:
        tiles = cdiv(columns, blocks.columns)
        partial = None if dot is None else out.new_empty(tasks, tiles * window.sites, rows)
        _product[(tasks, window.tiles(rows, blocks.rows), tiles)](
            a0, stride(a0), b0, stride(b0), a1, stride(a1), b1, stride(b1), bias, stride(bias),
            scale, stride(scale), dot, stride(dot), partial, *epilogue.operands(),
            window.sees, window.order, *window.walks(rows, blocks.rows), weight.tap_at,
            rows, window.sites, window.taps, columns, depth, window.in_sites * depth, by_depth, by_column,
            weight.bias_sites, **epilogue.constants(),
            TILE=blocks.rows, COLUMNS=blocks.columns, DEPTH=blocks.depth, PRECISION=precision,
            num_warps=blocks.warps, num_stages=blocks.stages,
        )  # fmt: skip
        if partial is not None and dot_out is not None:
            add_partials(partial, dot_out)

    key = (tasks, rows, window.in_sites, window.sites, window.taps, depth, columns, adjoint,
           a0 is None, a1 is None, epilogue.apply, precision)  # fmt: skip
    size = rows * window.sites, columns
    _tuned(key, size, launch, [*epilogue.written(), *([] if dot_out is None else [dot_out])])
