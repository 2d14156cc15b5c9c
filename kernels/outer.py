"""Gradients of weights and biases: F = b0^T a0 + b1^T a1, and where the update is fused, theta - rate scale F."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from .arithmetic import multiply
from .launch import PRECISION, Blocks, Tuned, block, cdiv, stride
from .product import Weight
from .windows import WindowTables

__all__ = ["Descent", "Target", "outer"]


@dataclass(frozen=True)
class Descent:
    """A fused update: out = theta - rate scale F for the tasks whose player moves.

    Attributes:
        theta: [T, P]; scale: [P] or None.
        rate: [T]; moves: uint8 [T].
    """

    theta: Tensor
    scale: Tensor | None
    rate: Tensor
    moves: Tensor

    def part(self, first: int) -> Descent:
        """Of the parameters from one on."""
        scale = None if self.scale is None else self.scale[first:]
        return Descent(self.theta[:, first:], scale, self.rate, self.moves)


@dataclass(frozen=True)
class Target:
    """Where a gradient goes: `out` [T, P], to which it is added or not; or an update, and then its squares are summed."""

    out: Tensor
    accumulate: bool = False
    descent: Descent | None = None

    def part(self, first: int) -> Target:
        descent = None if self.descent is None else self.descent.part(first)
        return Target(self.out[:, first:], self.accumulate, descent)

    def squares(self, parts: int) -> Tensor | None:
        """Room for partial sums [T, parts, 1], float64."""
        if self.descent is None:
            return None
        return torch.empty(len(self.out), parts, 1, dtype=torch.float64, device=self.out.device)

    def operands(self, squares: Tensor | None) -> tuple[object, ...]:
        """As `put` takes them."""
        d = self.descent
        if d is None:
            return (self.out, stride(self.out), None, 0, None, None, 0, None, 0, None)
        return (
            self.out, stride(self.out), d.theta, stride(d.theta), d.scale, d.rate, stride(d.rate),
            d.moves, stride(d.moves), squares,
        )  # fmt: skip


@triton.jit
def put(
    f,  # a block of a gradient
    at,  # where its elements are in a task's parameters
    ok,
    task,
    part,  # this program's place among `parts`
    parts,
    out,  # [T, ...]
    out_task,
    theta,  # [T, ...] or None
    theta_task,
    scale,  # [...] or None
    rate,  # [T]
    rate_task,
    moves,  # [T]
    moves_task,
    squares,  # [T, parts]
    ACCUMULATE: tl.constexpr,
):
    if theta is not None:
        f = tl.where(ok, f, 0.0)
        wide = tl.ravel(f).to(tl.float64)
        tl.store(squares + task * parts + part, tl.sum(wide * wide, 0))
        old = tl.load(theta + task * theta_task + at, mask=ok, other=0.0)
        step = tl.load(rate + task * rate_task)
        if scale is not None:
            step *= tl.load(scale + at, mask=ok, other=0.0)
        f = tl.where(tl.load(moves + task * moves_task) != 0, old - step * f, old)
    if ACCUMULATE:
        f += tl.load(out + task * out_task + at, mask=ok, other=0.0)
    tl.store(out + task * out_task + at, f, mask=ok)


@triton.jit
def _times(
    acc,  # [N, K]
    b,  # [rows, sites * n], of the task
    a,  # [rows, in_sites * k]
    first_pair,
    pairs,
    pair_out,
    pair_in,
    rows,
    n,
    k,
    b_row,
    a_row,
    n_all,
    k_all,
    DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """acc + the sum over samples and over one tap's pairs of sites of b's columns n times a's columns k."""
    for first in range(0, pairs * rows, DEPTH):
        both = first + tl.arange(0, DEPTH)
        both_ok = both < pairs * rows
        pair, row = first_pair + both // rows, both % rows
        site = tl.load(pair_out + pair, mask=both_ok, other=0)
        seen = tl.load(pair_in + pair, mask=both_ok, other=0)
        x = tl.load(
            b + (row * b_row + site * n_all)[None, :] + n[:, None],
            mask=(n < n_all)[:, None] & both_ok[None, :],
            other=0.0,
        )
        y = tl.load(
            a + (row * a_row + seen * k_all)[:, None] + k[None, :],
            mask=both_ok[:, None] & (k < k_all)[None, :],
            other=0.0,
        )
        acc = multiply(x, y, acc, PRECISION)
    return acc


# Sizes that no address is a multiple of need no kernel of their own.
@triton.jit(do_not_specialize=["rows0", "rows1"])
def _outer(
    b0,  # [T, rows0, sites * n]
    b0_task,
    a0,  # [T, rows0, in_sites * k]
    a0_task,
    b1,  # the same with rows1, or None
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
    first_pair,  # [taps + 1]
    pair_out,  # [pairs]
    pair_in,
    tap_at,  # [taps]
    rows0,
    rows1,
    n_all,
    k_all,
    b_row,
    a_row,
    by_n,
    by_k,
    ACCUMULATE: tl.constexpr,
    N: tl.constexpr,
    K: tl.constexpr,
    DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
):
    task = tl.program_id(0).to(tl.int64)
    k_tiles = tl.cdiv(k_all, K)
    tap = tl.program_id(2) // k_tiles
    n = tl.program_id(1) * N + tl.arange(0, N)
    k = tl.program_id(2) % k_tiles * K + tl.arange(0, K)
    first = tl.load(first_pair + tap)
    pairs = tl.load(first_pair + tap + 1) - first
    acc = tl.zeros((N, K), out.dtype.element_ty)
    acc = _times(
        acc, b0 + task * b0_task, a0 + task * a0_task, first, pairs, pair_out, pair_in, rows0,
        n, k, b_row, a_row, n_all, k_all, DEPTH, PRECISION,
    )  # fmt: skip
    if a1 is not None:
        acc = _times(
            acc, b1 + task * b1_task, a1 + task * a1_task, first, pairs, pair_out, pair_in, rows1,
            n, k, b_row, a_row, n_all, k_all, DEPTH, PRECISION,
        )  # fmt: skip
    at = tl.load(tap_at + tap) + n[:, None] * by_n + k[None, :] * by_k
    ok = (n < n_all)[:, None] & (k < k_all)[None, :]
    part = tl.program_id(1) * tl.num_programs(2) + tl.program_id(2)
    put(
        acc, at, ok, task, part, tl.num_programs(1) * tl.num_programs(2), out, out_task, theta,
        theta_task, scale, rate, rate_task, moves, moves_task, squares, ACCUMULATE,
    )  # fmt: skip


@triton.jit
def _column_sums(
    b,  # [T, rows, sites * n]
    b_task,
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
    rows,
    sites,
    n_all,
    bias_sites,
    ACCUMULATE: tl.constexpr,
    N: tl.constexpr,
    DEPTH: tl.constexpr,
):
    task = tl.program_id(0).to(tl.int64)
    n = tl.program_id(1) * N + tl.arange(0, N)
    of_site = tl.program_id(2)  # where each has a bias of its own
    summed = tl.where(bias_sites > 1, 1, sites)  # over this many sites
    acc = tl.zeros((N,), out.dtype.element_ty)
    for first in range(0, rows * summed, DEPTH):
        both = first + tl.arange(0, DEPTH)
        site = of_site + both % summed
        x = tl.load(
            b + task * b_task + (both // summed * (sites * n_all) + site * n_all)[:, None] + n[None, :],
            mask=(both < rows * summed)[:, None] & (n < n_all)[None, :],
            other=0.0,
        )
        acc += tl.sum(x, 0)
    part = tl.program_id(1) * tl.num_programs(2) + of_site
    put(
        acc, n * bias_sites + of_site, n < n_all, task, part, tl.num_programs(1) * tl.num_programs(2),
        out, out_task, theta, theta_task, scale, rate, rate_task, moves, moves_task, squares, ACCUMULATE,
    )  # fmt: skip


_tuned = Tuned()


def outer(
    b0: Tensor,
    a0: Tensor,
    b1: Tensor | None,
    a1: Tensor | None,
    weight: Weight,
    window: WindowTables,
    target: Target,
    bias: Target | None,
    *,
    precision: str = PRECISION,
) -> list[Tensor]:
    """The gradient of a weight, b0^T a0 + b1^T a1, and of its bias, the column sums of b0.

    Args:
        b0, b1: [T, rows, sites * n], each with rows of its own.
        a0, a1: [T, rows, in_sites * k].
        weight: how W lies in parameters.
        window: what output sites see.
        target: from the weight's first element on.
        bias: from the bias's first element on, or None.
        precision: of the products.

    Returns:
        Of fused updates the partial sums [T, parts, 1] of the gradients' squares.
    """
    sums: list[Tensor | None] = [None]

    def launch(blocks: Blocks) -> None:
        grid = (len(b0), cdiv(weight.n, blocks.rows), window.taps * cdiv(weight.k, blocks.columns))
        sums[0] = target.squares(grid[1] * grid[2])
        _outer[grid](
            b0, stride(b0), a0, stride(a0), b1, stride(b1), a1, stride(a1), *target.operands(sums[0]),
            window.first_pair, window.pair_out, window.pair_in, weight.tap_at,
            b0.shape[1], 0 if b1 is None else b1.shape[1], weight.n, weight.k, window.sites * weight.n,
            window.in_sites * weight.k, weight.by_n, weight.by_k, ACCUMULATE=target.accumulate,
            N=blocks.rows, K=blocks.columns, DEPTH=blocks.depth, PRECISION=precision,
            num_warps=blocks.warps, num_stages=blocks.stages,
        )  # fmt: skip

    key = (len(b0), b0.shape[1], window.in_sites, window.sites, window.taps, weight.n, weight.k,
           a1 is None, target.descent is None, precision)  # fmt: skip
    _tuned(key, (weight.n, weight.k), launch, [target.out])
    if bias is not None:
        size, depth = block(weight.n, 64), block(b0.shape[1], 64)
        grid = (len(b0), cdiv(weight.n, size), weight.bias_sites)
        sums.append(bias.squares(grid[1] * grid[2]))
        _column_sums[grid](
            b0, stride(b0), *bias.operands(sums[1]), b0.shape[1], window.sites, weight.n, weight.bias_sites,
            ACCUMULATE=bias.accumulate, N=size, DEPTH=depth,
        )  # fmt: skip
    return [each for each in sums if each is not None]
