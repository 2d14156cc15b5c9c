"""Spectral norms (csrc/spectral.h): matrices W [n, k] that lie scattered in one run of a task's parameters."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import block, cdiv, stride
from .sums import add_partials, dots

__all__ = ["Matrix", "along", "normalised_product", "quotient"]


@dataclass(frozen=True)
class Matrix:
    """Where W's elements are.

    Attributes:
        n, k: outputs and inputs; first: where its run of n * k elements begins in parameters.
        places: int32 [n, k], counted from there.
        row, column: int32 [n * k], of each element of the run.
    """

    n: int
    k: int
    first: int
    places: Tensor
    row: Tensor
    column: Tensor

    @staticmethod
    def of(places: Tensor) -> Matrix:
        """Of the places [n, k] in parameters."""
        n, k = places.shape
        first = int(places.min())
        inside = (places - first).flatten()
        at = torch.empty_like(inside)
        at[inside] = torch.arange(n * k, device=places.device)
        row, column = (each.to(torch.int32) for each in (at // k, at % k))
        return Matrix(n, k, first, inside.to(torch.int32), row, column)

    def run(self, parameters: Tensor) -> Tensor:
        """W's elements [T, n * k] of parameters [T, P], as they lie."""
        return parameters[:, self.first : self.first + self.n * self.k]


@triton.jit
def _times(
    w,  # [T, n * k], as it lies
    w_task,
    x,  # [T, contracted]
    x_task,
    y,  # [T, outputs]
    y_task,
    places,
    outputs,
    contracted,
    by_output,
    by_contracted,
    OUTPUTS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    task = tl.program_id(0).to(tl.int64)
    n = tl.program_id(1) * OUTPUTS + tl.arange(0, OUTPUTS)
    acc = tl.zeros((OUTPUTS, DEPTH), y.dtype.element_ty)
    for first in range(0, contracted, DEPTH):
        k = first + tl.arange(0, DEPTH)
        ok = (n < outputs)[:, None] & (k < contracted)[None, :]
        place = tl.load(places + n[:, None] * by_output + k[None, :] * by_contracted, mask=ok, other=0)
        element = tl.load(w + task * w_task + place, mask=ok, other=0.0)
        acc += element * tl.load(x + task * x_task + k, mask=k < contracted, other=0.0)[None, :]
    tl.store(y + task * y_task + n, tl.sum(acc, 1), mask=n < outputs)


@triton.jit
def _divide(
    x,  # [T, n]
    x_task,
    square,  # [T]
    out,  # [T, n]
    out_task,
    n,
    EPS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    task = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    y = tl.load(x + task * x_task + at, mask=at < n, other=0.0)
    norm = tl.maximum(tl.sqrt(tl.load(square + task)), EPS).to(y.dtype)
    tl.store(out + task * out_task + at, y / norm, mask=at < n)


def normalised_product(
    w: Tensor, x: Tensor, matrix: Matrix, out: Tensor, eps: float, *, transposed: bool
) -> None:
    """out = W x / |W x|, or with W^T; w [T, P], x and out [T, k] or [T, n]."""
    outputs, contracted, by_output, by_contracted = matrix.n, matrix.k, matrix.k, 1
    if transposed:
        outputs, contracted, by_output, by_contracted = contracted, outputs, by_contracted, by_output
    w, y = matrix.run(w), torch.empty_like(out, memory_format=torch.contiguous_format)
    size = block(outputs, 32)
    _times[(len(w), cdiv(outputs, size))](
        w, stride(w), x, stride(x), y, stride(y), matrix.places, outputs, contracted, by_output,
        by_contracted, OUTPUTS=size, DEPTH=block(contracted, 64),
    )  # fmt: skip
    size = block(outputs)
    _divide[(len(w), cdiv(outputs, size))](
        y, stride(y), dots(y, y), out, stride(out), outputs, EPS=eps, BLOCK=size
    )


@triton.jit
def _along(
    w,  # [T, n * k], as it lies
    w_task,
    u,  # [T, n]
    u_task,
    v,  # [T, k]
    v_task,
    row,  # [n * k]
    column,
    partial,  # [T, parts]
    elements,
    BLOCK: tl.constexpr,
):
    task = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    ok = at < elements
    x = tl.load(w + task * w_task + at, mask=ok, other=0.0).to(tl.float64)
    x *= tl.load(u + task * u_task + tl.load(row + at, mask=ok, other=0), mask=ok, other=0.0)
    x *= tl.load(v + task * v_task + tl.load(column + at, mask=ok, other=0), mask=ok, other=0.0)
    tl.store(partial + task * tl.num_programs(1) + tl.program_id(1), tl.sum(x, 0))


def along(w: Tensor, u: Tensor, v: Tensor, matrix: Matrix) -> Tensor:
    """u^T W v, [T], float64; w [T, P], u [T, n], v [T, k]."""
    w = matrix.run(w)
    tasks, elements = w.shape
    size = block(elements)
    partial = torch.empty(tasks, cdiv(elements, size), 1, dtype=torch.float64, device=w.device)
    _along[(tasks, partial.shape[1])](
        w, stride(w), u, stride(u), v, stride(v), matrix.row, matrix.column, partial, elements, BLOCK=size
    )
    out = torch.empty(tasks, 1, dtype=torch.float64, device=w.device)
    add_partials(partial, out, add=False)
    return out[:, 0]


@triton.jit
def _quotient(
    x,  # [T, n * k], as it lies
    x_task,
    sigma,  # [T], float64, as the other factors
    less,  # [T, n * k] or None
    less_task,
    less_factor,  # [T]
    outer_factor,  # [T] or None
    u,  # [T, n]
    u_task,
    v,  # [T, k]
    v_task,
    row,
    column,
    out,  # [T, n * k]
    out_task,
    elements,
    ACCUMULATE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    task = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    ok = at < elements
    y = tl.load(x + task * x_task + at, mask=ok, other=0.0)
    if less is not None:
        factor = tl.load(less_factor + task).to(y.dtype)
        y -= factor * tl.load(less + task * less_task + at, mask=ok, other=0.0)
    if outer_factor is not None:
        uv = tl.load(u + task * u_task + tl.load(row + at, mask=ok, other=0), mask=ok, other=0.0)
        uv *= tl.load(v + task * v_task + tl.load(column + at, mask=ok, other=0), mask=ok, other=0.0)
        y -= tl.load(outer_factor + task).to(y.dtype) * uv
    y /= tl.load(sigma + task).to(y.dtype)
    out += task * out_task + at
    if ACCUMULATE:
        y += tl.load(out, mask=ok, other=0.0)
    tl.store(out, y, mask=ok)


def quotient(
    x: Tensor,
    sigma: Tensor,
    matrix: Matrix,
    out: Tensor,
    *,
    less: tuple[Tensor, Tensor] | None = None,
    outer: tuple[Tensor, Tensor, Tensor] | None = None,
    accumulate: bool = False,
) -> None:
    """W's elements of out (+)= (x - factor * less - factor * u v^T) / sigma.

    Args:
        x, out: [T, P]; sigma: float64 [T].
        less: (factor float64 [T], [T, P]); outer: (factor float64 [T], u [T, n], v [T, k]).
    """
    x, out = matrix.run(x), matrix.run(out)
    factor, other = (None, None) if less is None else (less[0], matrix.run(less[1]))
    of_outer, u, v = (None, None, None) if outer is None else outer
    size = block(matrix.n * matrix.k)
    _quotient[(len(x), cdiv(matrix.n * matrix.k, size))](
        x, stride(x), sigma, other, stride(other), factor, of_outer, u, stride(u), v, stride(v),
        matrix.row, matrix.column, out, stride(out), matrix.n * matrix.k, ACCUMULATE=accumulate, BLOCK=size,
    )  # fmt: skip
