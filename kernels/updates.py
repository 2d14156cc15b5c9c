"""Updates of the inner optimisers (csrc/optimisers.h) and their adjoints, for tasks that may each have a kind of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import block, cdiv, stride
from .optimisers import direction_of, m0_of, m1_of, v0_of, v1_of, w_of

__all__ = ["Optimisers", "Player", "adjoint", "update"]


@dataclass(frozen=True)
class Optimisers:
    """Numbers that the formulas know, and which kinds occur: masks with a bit for each of pymgan.contract.OPTIMISERS."""

    momentum: float
    betas: tuple[float, float]
    eps: float
    kinds: int
    with_first: int
    with_second: int

    def constants(self) -> dict[str, Any]:
        return {
            "MOMENTUM": self.momentum,
            "BETA1": self.betas[0],
            "BETA2": self.betas[1],
            "EPS": self.eps,
            "KINDS": self.kinds,
            "WITH_FIRST": self.with_first,
            "WITH_SECOND": self.with_second,
        }


@dataclass(frozen=True)
class Player:
    """One player's step.

    Attributes:
        rate, kind, number: [T], of the optimiser, its kind (int64) and of the update since the player's moments were zero.
        moves: uint8 [T].
        scale: [P_player] or None.
        square: float64 [T], of the gradient's norm, where a kind asks for it.
    """

    rate: Tensor
    kind: Tensor
    number: Tensor
    moves: Tensor
    scale: Tensor | None
    square: Tensor | None

    def operands(self) -> tuple[Any, ...]:
        return (
            self.rate, stride(self.rate), self.kind, self.number, stride(self.number),
            self.moves, stride(self.moves), self.scale, self.square,
        )  # fmt: skip


@triton.jit
def _bias(BETA: tl.constexpr, number):
    """1 - beta^number, in float64."""
    return 1.0 - tl.exp(number.to(tl.float64) * tl.log(tl.full([1], BETA, tl.float64)))


@triton.jit
def _among(KINDS: tl.constexpr, kind):
    return ((tl.full([1], KINDS, tl.int64) >> kind) & 1) == 1


@triton.jit
def _knobs(
    number, square, task, EPS: tl.constexpr, BETA1: tl.constexpr, BETA2: tl.constexpr, dtype: tl.constexpr
):
    """(bias1, bias2, past, norm) of a task."""
    past = tl.where(number > 1.0, 1.0, 0.0).to(dtype)
    norm = tl.full([1], 1.0, dtype)
    if square is not None:
        norm = tl.sqrt(tl.load(square + task) + EPS).to(dtype)
    return _bias(BETA1, number).to(dtype), _bias(BETA2, number).to(dtype), past, norm


@triton.jit
def _update(
    gradient,  # [T, n]
    gradient_task,
    theta,  # [T, n]
    theta_task,
    out,  # [T, n]
    out_task,
    first,  # [T, n] or None: the moments, before and after
    second,
    moment_task,
    first_next,
    second_next,
    next_task,
    rate,  # [T]
    rate_task,
    kinds,  # [T]
    numbers,  # [T]
    numbers_task,
    moves,  # [T]
    moves_task,
    scale,  # [n] or None
    square,  # [T] or None
    n,
    MOMENTUM: tl.constexpr,
    BETA1: tl.constexpr,
    BETA2: tl.constexpr,
    EPS: tl.constexpr,
    KINDS: tl.constexpr,
    WITH_FIRST: tl.constexpr,
    WITH_SECOND: tl.constexpr,
    BLOCK: tl.constexpr,
):
    task = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    ok = at < n
    f = tl.load(gradient + task * gradient_task + at, mask=ok, other=0.0)
    kind, number = tl.load(kinds + task), tl.load(numbers + task * numbers_task)
    bias1, bias2, past, norm = _knobs(number, square, task, EPS, BETA1, BETA2, f.dtype)
    m0, m1, zero = f * 0.0, f * 0.0, f * 0.0
    before0, before1 = zero, zero
    if first is not None:
        before0 = tl.load(first + task * moment_task + at, mask=ok, other=0.0)
        m0 = tl.where(number == 1.0, 0.0, before0)
    if second is not None:
        before1 = tl.load(second + task * moment_task + at, mask=ok, other=0.0)
        m1 = tl.where(number == 1.0, 0.0, before1)
    moving = tl.load(moves + task * moves_task) != 0
    d = direction_of(kind, f, m0, m1, zero, zero, zero, MOMENTUM, BETA1, BETA2, 1.0 - BETA1, 1.0 - BETA2,
                     bias1, bias2, EPS, past, norm, 0.0, KINDS)  # fmt: skip
    step = tl.load(rate + task * rate_task)
    if scale is not None:
        step *= tl.load(scale + at, mask=ok, other=0.0)
    old = tl.load(theta + task * theta_task + at, mask=ok, other=0.0)
    tl.store(out + task * out_task + at, tl.where(moving, old - step * d, old), mask=ok)
    if first_next is not None:
        after = m0_of(kind, f, m0, m1, zero, zero, zero, MOMENTUM, BETA1, BETA2, 1.0 - BETA1, 1.0 - BETA2,
                      bias1, bias2, EPS, past, norm, 0.0, KINDS)  # fmt: skip
        used = moving & _among(WITH_FIRST, kind)
        tl.store(first_next + task * next_task + at, tl.where(used, after, before0), mask=ok)
    if second_next is not None:
        after = m1_of(kind, f, m0, m1, zero, zero, zero, MOMENTUM, BETA1, BETA2, 1.0 - BETA1, 1.0 - BETA2,
                      bias1, bias2, EPS, past, norm, 0.0, KINDS)  # fmt: skip
        used = moving & _among(WITH_SECOND, kind)
        tl.store(second_next + task * next_task + at, tl.where(used, after, before1), mask=ok)


def update(
    gradient: Tensor,
    theta: Tensor,
    out: Tensor,
    moments: Sequence[Tensor],
    moments_next: Sequence[Tensor],
    player: Player,
    optimisers: Optimisers,
) -> None:
    """out = theta - rate scale d, and the moments after it, for the tasks whose player moves; all [T, P_player]."""
    tasks, n = gradient.shape
    size = block(n)
    before, after = [*moments, None, None][:2], [*moments_next, None, None][:2]
    _update[(tasks, cdiv(n, size))](
        gradient, stride(gradient), theta, stride(theta), out, stride(out), *before, stride(before[0]),
        *after, stride(after[0]), *player.operands(), n, **optimisers.constants(), BLOCK=size,
    )  # fmt: skip


@triton.jit
def _adjoint(
    gradient,  # [T, n] or None
    gradient_task,
    v,  # [T, n]
    v_task,
    out,  # [T, n]
    out_task,
    first,  # [T, n] or None: the moments before the update
    second,
    moment_task,
    v_first,  # [T, n] or None: cotangents of the moments, replaced
    v_second,
    v_moment_task,
    d_scale,  # [T, n] or None
    d_scale_task,
    partial,  # [T, parts]: of d_rate
    along,  # [T] or None: the sum of scale v F
    rate,
    rate_task,
    kinds,
    numbers,
    numbers_task,
    moves,
    moves_task,
    scale,
    square,
    n,
    MOMENTUM: tl.constexpr,
    BETA1: tl.constexpr,
    BETA2: tl.constexpr,
    EPS: tl.constexpr,
    KINDS: tl.constexpr,
    WITH_FIRST: tl.constexpr,
    WITH_SECOND: tl.constexpr,
    BLOCK: tl.constexpr,
):
    task = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    ok = at < n
    cotangent = tl.load(v + task * v_task + at, mask=ok, other=0.0)
    zero = cotangent * 0.0
    f = zero
    if gradient is not None:
        f = tl.load(gradient + task * gradient_task + at, mask=ok, other=0.0)
    kind, number = tl.load(kinds + task), tl.load(numbers + task * numbers_task)
    bias1, bias2, past, norm = _knobs(number, square, task, EPS, BETA1, BETA2, f.dtype)
    m0, m1, v0, v1 = zero, zero, zero, zero
    if first is not None:
        m0 = tl.where(number == 1.0, 0.0, tl.load(first + task * moment_task + at, mask=ok, other=0.0))
    if second is not None:
        m1 = tl.where(number == 1.0, 0.0, tl.load(second + task * moment_task + at, mask=ok, other=0.0))
    if v_first is not None:
        v0 = tl.load(v_first + task * v_moment_task + at, mask=ok, other=0.0)
    if v_second is not None:
        v1 = tl.load(v_second + task * v_moment_task + at, mask=ok, other=0.0)
    moving = tl.load(moves + task * moves_task) != 0
    step = tl.load(rate + task * rate_task)
    scaled = cotangent
    if scale is not None:
        scaled = tl.load(scale + at, mask=ok, other=0.0) * cotangent
    a = -step * scaled
    of_all = tl.full([1], 0.0, f.dtype)  # <a, d> of "normalised", whose d is F / norm
    if along is not None:
        of_all = (-step * tl.load(along + task) / norm).to(f.dtype)
    w = w_of(kind, f, m0, m1, a, v0, v1, MOMENTUM, BETA1, BETA2, 1.0 - BETA1, 1.0 - BETA2,
             bias1, bias2, EPS, past, norm, of_all, KINDS)  # fmt: skip
    tl.store(out + task * out_task + at, tl.where(moving, w, 0.0), mask=ok)
    if v_first is not None:
        before = v0_of(kind, f, m0, m1, a, v0, v1, MOMENTUM, BETA1, BETA2, 1.0 - BETA1, 1.0 - BETA2,
                       bias1, bias2, EPS, past, norm, of_all, KINDS)  # fmt: skip
        before = tl.where(number == 1.0, 0.0, before)
        used = moving & _among(WITH_FIRST, kind)
        tl.store(v_first + task * v_moment_task + at, tl.where(used, before, v0), mask=ok)
    if v_second is not None:
        before = v1_of(kind, f, m0, m1, a, v0, v1, MOMENTUM, BETA1, BETA2, 1.0 - BETA1, 1.0 - BETA2,
                       bias1, bias2, EPS, past, norm, of_all, KINDS)  # fmt: skip
        before = tl.where(number == 1.0, 0.0, before)
        used = moving & _among(WITH_SECOND, kind)
        tl.store(v_second + task * v_moment_task + at, tl.where(used, before, v1), mask=ok)
    if d_scale is not None:
        d = direction_of(kind, f, m0, m1, zero, zero, zero, MOMENTUM, BETA1, BETA2, 1.0 - BETA1, 1.0 - BETA2,
                         bias1, bias2, EPS, past, norm, 0.0, KINDS)  # fmt: skip
        d = tl.where(moving & ok, d, 0.0)
        d_scale += task * d_scale_task + at
        tl.store(d_scale, tl.load(d_scale, mask=ok, other=0.0) - step * (d * cotangent), mask=ok)
        of_rate = tl.sum((d * scaled).to(tl.float64), 0)
        tl.store(partial + task * tl.num_programs(1) + tl.program_id(1), of_rate)


def adjoint(
    gradient: Tensor | None,
    v: Tensor,
    out: Tensor,
    moments: Sequence[Tensor],
    v_moments: Sequence[Tensor],
    player: Player,
    optimisers: Optimisers,
    *,
    along: Tensor | None,
    d_scale: Tensor | None,
) -> Tensor | None:
    """out = w, the adjoint of the gradient through `update`, and of the moments; all [T, P_player].

    Args:
        v_moments: replaced.
        along: float64 [T], the sums of scale v F, where a kind asks for them.
        d_scale: what this step adds is subtracted: [T, P_player].

    Returns:
        With d_scale, partial sums [T, parts, 1] of what is to be subtracted from the derivative of the rate.
    """
    tasks, n = v.shape
    size = block(n)
    before, cotangents = [*moments, None, None][:2], [*v_moments, None, None][:2]
    partial = None
    if d_scale is not None:
        partial = v.new_empty(tasks, cdiv(n, size), 1, dtype=torch.float64)
    _adjoint[(tasks, cdiv(n, size))](
        gradient, stride(gradient), v, stride(v), out, stride(out), *before, stride(before[0]),
        *cotangents, stride(cotangents[0]), d_scale, stride(d_scale), partial, along,
        *player.operands(), n, **optimisers.constants(), BLOCK=size,
    )  # fmt: skip
    return partial
