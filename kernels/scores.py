"""What stands between a player's scores and its gradient: losses, penalties and their changes. One program a task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import triton
import triton.language as tl
from torch import Tensor

from .arithmetic import is_finite
from .launch import block, stride
from .losses import loss_term, penalty_term

__all__ = ["Watch", "check", "combine", "head", "penalty"]


@dataclass(frozen=True)
class Watch:
    """Where losses and norms are looked at.

    Attributes:
        trace: [T, 8], the columns of `pymgan.contract.TRACE`, or None: not kept.
        valid: uint8 [T], cleared where a number of an active player is not finite, or None: not judged.
        active: uint8 [T, 2], or None: both are.
    """

    trace: Tensor | None
    valid: Tensor | None
    active: Tensor | None

    def operands(self) -> tuple[object, ...]:
        return (
            self.trace, stride(self.trace), self.valid, stride(self.valid), self.active, stride(self.active),
        )  # fmt: skip


@triton.jit
def _judge(number, player, task, valid, valid_task, active, active_task):
    """Clears a task's `valid` if the number is not finite and the player active."""
    if valid is not None:
        good = is_finite(number)
        if active is not None:
            good = good | (tl.load(active + task * active_task + player) == 0)
        before = tl.load(valid + task * valid_task)
        tl.store(valid + task * valid_task, tl.where(good, before, tl.zeros_like(before)))


@triton.jit
def _mean(x, of, count):
    """Of the elements that `of` says, which are that many."""
    return tl.sum(tl.where(of, x, 0.0), 0) / tl.maximum(count, 1).to(x.dtype)


@triton.jit
def _relative(s, fake, real, fakes, reals):
    """R s: each score less the mean score of the other kind."""
    return tl.where(fake, s - _mean(s, real, reals), s - _mean(s, fake, fakes))


@triton.jit
def _relative_adjoint(c, fake, real, fakes, reals):
    """R^T c."""
    of_fakes = tl.sum(tl.where(fake, c, 0.0), 0) / tl.maximum(reals, 1).to(c.dtype)
    of_reals = tl.sum(tl.where(real, c, 0.0), 0) / tl.maximum(fakes, 1).to(c.dtype)
    return tl.where(fake, c - of_reals, c - of_fakes)


@triton.jit
def _terms(
    s,
    e,
    fake,
    fakes,
    reals,
    LOSS: tl.constexpr,
    OF_FAKE: tl.constexpr,
    OF_REAL: tl.constexpr,
    ORDER: tl.constexpr,
):
    """Of every sample, its share of a loss, which is a sum of two means."""
    of_fake = loss_term(s, e, LOSS, OF_FAKE, ORDER) / tl.maximum(fakes, 1).to(s.dtype)
    of_real = loss_term(s, e, LOSS, OF_REAL, ORDER) / tl.maximum(reals, 1).to(s.dtype)
    return tl.where(fake, of_fake, of_real)


@triton.jit
def _deviation(x, of, count):
    away = tl.where(of, x - _mean(x, of, count), 0.0)
    return tl.sqrt(_mean(away * away, of, count))


@triton.jit
def _head(
    score,  # [T, rows]
    score_task,
    c_g,  # [T, rows] or None, as the next three
    c_g_task,
    c_d,
    c_d_task,
    cc_g,
    cc_g_task,
    cc_d,
    cc_d_task,
    trace,  # [T, 8] or None
    trace_task,
    valid,  # [T] or None
    valid_task,
    active,  # [T, 2] or None
    active_task,
    fakes,
    reals,
    E: tl.constexpr,
    LOSS: tl.constexpr,
    RELATIVE: tl.constexpr,
    PLAYERS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    task = tl.program_id(0).to(tl.int64)
    row = tl.arange(0, BLOCK)
    ok = row < fakes + reals
    fake, real = row < fakes, (row >= fakes) & ok
    scored = tl.load(score + task * score_task + row, mask=ok, other=0.0)
    s = scored
    if RELATIVE:
        s = _relative(scored, fake, real, fakes, reals)
    if c_g is not None:
        c = _terms(s, E, fake, fakes, reals, LOSS, "g", "g_real", 1)
        if RELATIVE:
            c = _relative_adjoint(c, fake, real, fakes, reals)
        tl.store(c_g + task * c_g_task + row, c, mask=ok)
    if c_d is not None:
        c = _terms(s, E, fake, fakes, reals, LOSS, "d_fake", "d_real", 1)
        if RELATIVE:
            c = _relative_adjoint(c, fake, real, fakes, reals)
        tl.store(c_d + task * c_d_task + row, c, mask=ok)
    if cc_g is not None:
        tl.store(
            cc_g + task * cc_g_task + row, _terms(s, E, fake, fakes, reals, LOSS, "g", "g_real", 2), mask=ok
        )
    if cc_d is not None:
        c = _terms(s, E, fake, fakes, reals, LOSS, "d_fake", "d_real", 2)
        tl.store(cc_d + task * cc_d_task + row, c, mask=ok)
    if PLAYERS & 1:
        loss = tl.sum(tl.where(ok, _terms(s, E, fake, fakes, reals, LOSS, "g", "g_real", 0), 0.0), 0)
        _judge(loss, 0, task, valid, valid_task, active, active_task)
        if trace is not None:
            tl.store(trace + task * trace_task, loss)
    if PLAYERS & 2:
        loss = tl.sum(tl.where(ok, _terms(s, E, fake, fakes, reals, LOSS, "d_fake", "d_real", 0), 0.0), 0)
        _judge(loss, 1, task, valid, valid_task, active, active_task)
        if trace is not None:
            trace += task * trace_task
            tl.store(trace + 1, loss)
            tl.store(trace + 4, _mean(scored, fake, fakes))
            tl.store(trace + 5, _deviation(scored, fake, fakes))
            tl.store(trace + 6, _mean(scored, real, reals))
            tl.store(trace + 7, _deviation(scored, real, reals))


def head(
    score: Tensor,
    derivatives: Sequence[Tensor | None],
    watch: Watch,
    *,
    fakes: int,
    reals: int,
    loss: str,
    smoothing: float,
    relative: bool,
    players: int,
) -> None:
    """Derivatives of both losses by the scores [T, fakes + reals], the losses and the scores' statistics.

    Args:
        derivatives: those that are wanted of the first of L_G and L_D, the second of L_G and L_D, [T, fakes + reals].
        relative: the loss is a function of relative scores; second derivatives are with respect to those.
        players: a mask of those who report, 1 for G and 2 for D.
    """
    outputs: list[object] = []
    for c in derivatives:
        outputs += [c, stride(c)]
    _head[(len(score),)](
        score, stride(score), *outputs, *watch.operands(), fakes, reals, E=smoothing, LOSS=loss,
        RELATIVE=relative, PLAYERS=players, BLOCK=block(fakes + reals, 1 << 20),
    )  # fmt: skip


@triton.jit
def _combine(
    a0,  # [T, rows] or None
    a0_task,
    b0,  # [T, rows0]
    b0_task,
    a1,  # [T, rows] or None
    a1_task,
    b1,  # [T, rows]
    b1_task,
    out,  # [T, rows]
    out_task,
    rows0,
    fakes,
    reals,
    RELATIVE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    task = tl.program_id(0).to(tl.int64)
    row = tl.arange(0, BLOCK)
    ok = row < fakes + reals
    fake, real = row < fakes, (row >= fakes) & ok
    total = tl.zeros((BLOCK,), out.dtype.element_ty)
    if a0 is not None:
        change = tl.load(b0 + task * b0_task + row, mask=row < rows0, other=0.0)
        if RELATIVE:
            change = _relative(change, fake, real, fakes, reals)
            total += tl.load(a0 + task * a0_task + row, mask=ok, other=0.0) * change
        else:
            total += tl.load(a0 + task * a0_task + row, mask=row < rows0, other=0.0) * change
    if a1 is not None:
        change = tl.load(b1 + task * b1_task + row, mask=ok, other=0.0)
        if RELATIVE:
            change = _relative(change, fake, real, fakes, reals)
        total += tl.load(a1 + task * a1_task + row, mask=ok, other=0.0) * change
    if RELATIVE:
        total = _relative_adjoint(total, fake, real, fakes, reals)
    tl.store(out + task * out_task + row, total, mask=ok)


def combine(
    a0: Tensor | None,
    b0: Tensor | None,
    a1: Tensor | None,
    b1: Tensor | None,
    out: Tensor,
    *,
    fakes: int = 0,
) -> None:
    """out [T, rows] = a0 * b0 (its first rows) + a1 * b1; with fakes, of relative scores R s: R^T (a0 R b0 + a1 R b1)."""
    rows0, rows = 0 if b0 is None else b0.shape[1], out.shape[1]
    _combine[(len(out),)](
        a0, stride(a0), b0, stride(b0), a1, stride(a1), b1, stride(b1), out, stride(out), rows0,
        fakes, rows - fakes, RELATIVE=fakes > 0, BLOCK=block(rows, 1 << 20),
    )  # fmt: skip


@triton.jit
def _penalty(
    norm2,  # [T, rows]
    norm2_task,
    penalised,  # [T]
    c_d,  # [T, rows] or None
    c_d_task,
    cc_d,  # [T, rows] or None
    cc_d_task,
    trace,  # [T, 8] or None
    trace_task,
    valid,  # [T] or None
    valid_task,
    active,  # [T, 2] or None
    active_task,
    rows,
    SHARE: tl.constexpr,
    EPSILON: tl.constexpr,
    KIND: tl.constexpr,
    LOOK: tl.constexpr,
    BLOCK: tl.constexpr,
):
    task = tl.program_id(0).to(tl.int64)
    row = tl.arange(0, BLOCK)
    ok = row < rows
    n = tl.load(norm2 + task * norm2_task + row, mask=ok, other=0.0)
    share = tl.where(tl.load(penalised + task) != 0, SHARE, 0.0)
    share = tl.where(ok, share, 0.0).to(n.dtype)
    if c_d is not None:
        c = 2.0 * share * penalty_term(n, EPSILON, KIND, 1)
        tl.store(c_d + task * c_d_task + row, c, mask=ok)
    if cc_d is not None:
        c = 4.0 * share * penalty_term(n, EPSILON, KIND, 2)
        tl.store(cc_d + task * cc_d_task + row, c, mask=ok)
    if LOOK:
        loss = tl.sum(share * penalty_term(n, EPSILON, KIND, 0), 0)
        if trace is not None:
            loss += tl.load(trace + task * trace_task + 1)
            tl.store(trace + task * trace_task + 1, loss)
        _judge(loss, 1, task, valid, valid_task, active, active_task)


def penalty(
    norm2: Tensor,
    penalised: Tensor,
    c_d: Tensor | None,
    cc_d: Tensor | None,
    watch: Watch | None,
    *,
    kind: str,
    weight: float,
    epsilon: float,
) -> None:
    """c_d = 2 p', cc_d = 4 p'' of the penalty's mean in squared norms [T, rows], 0 where not penalised (uint8 [T]).

    With a watch the loss of D grows by it.
    """
    tasks, rows = norm2.shape
    at = watch or Watch(None, None, None)
    _penalty[(tasks,)](
        norm2, stride(norm2), penalised, c_d, stride(c_d), cc_d, stride(cc_d), *at.operands(), rows,
        SHARE=weight / rows, EPSILON=epsilon, KIND=kind, LOOK=watch is not None,
        BLOCK=block(rows, 1 << 20),
    )  # fmt: skip


@triton.jit
def _check(
    square,  # [T], float64
    trace,  # [T, 8] or None
    trace_task,
    valid,  # [T] or None
    valid_task,
    active,  # [T, 2] or None
    active_task,
    PLAYER: tl.constexpr,
):
    task = tl.program_id(0).to(tl.int64)
    norm = tl.sqrt(tl.load(square + task))
    if trace is not None:
        tl.store(trace + task * trace_task + 2 + PLAYER, norm.to(trace.dtype.element_ty))
    _judge(norm, PLAYER, task, valid, valid_task, active, active_task)


def check(square: Tensor, watch: Watch, player: int) -> None:
    """A player's gradient has this squared norm [T], float64."""
    _check[(len(square),)](square, *watch.operands(), PLAYER=player)
