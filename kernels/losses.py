"""Losses and penalties: the formulas of csrc/formulas.h in Triton.

Made by ``python -m tests.triton_formulas`` from what the compiled core exports; not to be edited.
"""

import triton
import triton.language as tl

from .arithmetic import log1p, maximum


@triton.jit
def _nonsaturating(s, e, TERM: tl.constexpr, ORDER: tl.constexpr):
    if TERM == "g":
        if ORDER == 0:
            y = (maximum(-s, 0.0) + log1p(tl.exp(-tl.abs(s))))
        elif ORDER == 1:
            t0 = tl.exp(-tl.abs(s))
            t1 = 1.0 + t0
            y = -tl.where(s > 0.0, (t0 / t1), (1.0 / t1))
        else:
            t0 = tl.exp(-tl.abs(s))
            t1 = 1.0 + t0
            t2 = 1.0 / t1
            t3 = t0 / t1
            y = (tl.where(s > 0.0, t2, t3) * tl.where(s > 0.0, t3, t2))
    elif TERM == "g_real":
        if ORDER == 0:
            y = tl.full(s.shape, 0.0, s.dtype)
        elif ORDER == 1:
            y = tl.full(s.shape, 0.0, s.dtype)
        else:
            y = tl.full(s.shape, 0.0, s.dtype)
    elif TERM == "d_fake":
        if ORDER == 0:
            y = (maximum(s, 0.0) + log1p(tl.exp(-tl.abs(s))))
        elif ORDER == 1:
            t0 = tl.exp(-tl.abs(s))
            t1 = 1.0 + t0
            y = tl.where(s > 0.0, (1.0 / t1), (t0 / t1))
        else:
            t0 = tl.exp(-tl.abs(s))
            t1 = 1.0 + t0
            t2 = 1.0 / t1
            t3 = t0 / t1
            y = (tl.where(s > 0.0, t2, t3) * tl.where(s > 0.0, t3, t2))
    else:
        if ORDER == 0:
            y = ((((1.0 - e) * maximum(-s, 0.0)) + (e * maximum(s, 0.0))) + log1p(tl.exp(-tl.abs(s))))
        elif ORDER == 1:
            t0 = tl.exp(-tl.abs(s))
            t1 = 1.0 + t0
            t2 = 1.0 / t1
            t3 = t0 / t1
            y = ((e * tl.where(s > 0.0, t2, t3)) - ((1.0 - e) * tl.where(s > 0.0, t3, t2)))
        else:
            t0 = tl.exp(-tl.abs(s))
            t1 = 1.0 + t0
            t2 = 1.0 / t1
            t3 = t0 / t1
            y = (tl.where(s > 0.0, t2, t3) * tl.where(s > 0.0, t3, t2))
    return y



@triton.jit
def _saturating(s, e, TERM: tl.constexpr, ORDER: tl.constexpr):
    if TERM == "g":
        if ORDER == 0:
            y = -(maximum(s, 0.0) + log1p(tl.exp(-tl.abs(s))))
        elif ORDER == 1:
            t0 = tl.exp(-tl.abs(s))
            t1 = 1.0 + t0
            y = -tl.where(s > 0.0, (1.0 / t1), (t0 / t1))
        else:
            t0 = tl.exp(-tl.abs(s))
            t1 = 1.0 + t0
            t2 = 1.0 / t1
            t3 = t0 / t1
            y = -(tl.where(s > 0.0, t2, t3) * tl.where(s > 0.0, t3, t2))
    elif TERM == "g_real":
        if ORDER == 0:
            y = tl.full(s.shape, 0.0, s.dtype)
        elif ORDER == 1:
            y = tl.full(s.shape, 0.0, s.dtype)
        else:
            y = tl.full(s.shape, 0.0, s.dtype)
    elif TERM == "d_fake":
        if ORDER == 0:
            y = (maximum(s, 0.0) + log1p(tl.exp(-tl.abs(s))))
        elif ORDER == 1:
            t0 = tl.exp(-tl.abs(s))
            t1 = 1.0 + t0
            y = tl.where(s > 0.0, (1.0 / t1), (t0 / t1))
        else:
            t0 = tl.exp(-tl.abs(s))
            t1 = 1.0 + t0
            t2 = 1.0 / t1
            t3 = t0 / t1
            y = (tl.where(s > 0.0, t2, t3) * tl.where(s > 0.0, t3, t2))
    else:
        if ORDER == 0:
            y = ((((1.0 - e) * maximum(-s, 0.0)) + (e * maximum(s, 0.0))) + log1p(tl.exp(-tl.abs(s))))
        elif ORDER == 1:
            t0 = tl.exp(-tl.abs(s))
            t1 = 1.0 + t0
            t2 = 1.0 / t1
            t3 = t0 / t1
            y = ((e * tl.where(s > 0.0, t2, t3)) - ((1.0 - e) * tl.where(s > 0.0, t3, t2)))
        else:
            t0 = tl.exp(-tl.abs(s))
            t1 = 1.0 + t0
            t2 = 1.0 / t1
            t3 = t0 / t1
            y = (tl.where(s > 0.0, t2, t3) * tl.where(s > 0.0, t3, t2))
    return y



@triton.jit
def _relativistic(s, e, TERM: tl.constexpr, ORDER: tl.constexpr):
    if TERM == "g":
        if ORDER == 0:
            y = (maximum(-s, 0.0) + log1p(tl.exp(-tl.abs(s))))
        elif ORDER == 1:
            t0 = tl.exp(-tl.abs(s))
            t1 = 1.0 + t0
            y = -tl.where(s > 0.0, (t0 / t1), (1.0 / t1))
        else:
            t0 = tl.exp(-tl.abs(s))
            t1 = 1.0 + t0
            t2 = 1.0 / t1
            t3 = t0 / t1
            y = (tl.where(s > 0.0, t2, t3) * tl.where(s > 0.0, t3, t2))
    elif TERM == "g_real":
        if ORDER == 0:
            y = (maximum(s, 0.0) + log1p(tl.exp(-tl.abs(s))))
        elif ORDER == 1:
            t0 = tl.exp(-tl.abs(s))
            t1 = 1.0 + t0
            y = tl.where(s > 0.0, (1.0 / t1), (t0 / t1))
        else:
            t0 = tl.exp(-tl.abs(s))
            t1 = 1.0 + t0
            t2 = 1.0 / t1
            t3 = t0 / t1
            y = (tl.where(s > 0.0, t2, t3) * tl.where(s > 0.0, t3, t2))
    elif TERM == "d_fake":
        if ORDER == 0:
            y = (maximum(s, 0.0) + log1p(tl.exp(-tl.abs(s))))
        elif ORDER == 1:
            t0 = tl.exp(-tl.abs(s))
            t1 = 1.0 + t0
            y = tl.where(s > 0.0, (1.0 / t1), (t0 / t1))
        else:
            t0 = tl.exp(-tl.abs(s))
            t1 = 1.0 + t0
            t2 = 1.0 / t1
            t3 = t0 / t1
            y = (tl.where(s > 0.0, t2, t3) * tl.where(s > 0.0, t3, t2))
    else:
        if ORDER == 0:
            y = ((((1.0 - e) * maximum(-s, 0.0)) + (e * maximum(s, 0.0))) + log1p(tl.exp(-tl.abs(s))))
        elif ORDER == 1:
            t0 = tl.exp(-tl.abs(s))
            t1 = 1.0 + t0
            t2 = 1.0 / t1
            t3 = t0 / t1
            y = ((e * tl.where(s > 0.0, t2, t3)) - ((1.0 - e) * tl.where(s > 0.0, t3, t2)))
        else:
            t0 = tl.exp(-tl.abs(s))
            t1 = 1.0 + t0
            t2 = 1.0 / t1
            t3 = t0 / t1
            y = (tl.where(s > 0.0, t2, t3) * tl.where(s > 0.0, t3, t2))
    return y



@triton.jit
def _hinge(s, e, TERM: tl.constexpr, ORDER: tl.constexpr):
    if TERM == "g":
        if ORDER == 0:
            y = -s
        elif ORDER == 1:
            y = tl.full(s.shape, -1.0, s.dtype)
        else:
            y = tl.full(s.shape, 0.0, s.dtype)
    elif TERM == "g_real":
        if ORDER == 0:
            y = tl.full(s.shape, 0.0, s.dtype)
        elif ORDER == 1:
            y = tl.full(s.shape, 0.0, s.dtype)
        else:
            y = tl.full(s.shape, 0.0, s.dtype)
    elif TERM == "d_fake":
        if ORDER == 0:
            y = maximum((1.0 + s), 0.0)
        elif ORDER == 1:
            y = tl.where((1.0 + s) > 0.0, 1.0, 0.0)
        else:
            y = tl.full(s.shape, 0.0, s.dtype)
    else:
        if ORDER == 0:
            y = maximum((1.0 - s), 0.0)
        elif ORDER == 1:
            y = tl.where((1.0 - s) > 0.0, -1.0, 0.0)
        else:
            y = tl.full(s.shape, 0.0, s.dtype)
    return y



@triton.jit
def _least_squares(s, e, TERM: tl.constexpr, ORDER: tl.constexpr):
    if TERM == "g":
        if ORDER == 0:
            t0 = s - 1.0
            y = ((0.5 * t0) * t0)
        elif ORDER == 1:
            y = (s - 1.0)
        else:
            y = tl.full(s.shape, 1.0, s.dtype)
    elif TERM == "g_real":
        if ORDER == 0:
            y = tl.full(s.shape, 0.0, s.dtype)
        elif ORDER == 1:
            y = tl.full(s.shape, 0.0, s.dtype)
        else:
            y = tl.full(s.shape, 0.0, s.dtype)
    elif TERM == "d_fake":
        if ORDER == 0:
            y = ((0.5 * s) * s)
        elif ORDER == 1:
            y = s
        else:
            y = tl.full(s.shape, 1.0, s.dtype)
    else:
        if ORDER == 0:
            t0 = s - (1.0 - e)
            y = ((0.5 * t0) * t0)
        elif ORDER == 1:
            y = (s - (1.0 - e))
        else:
            y = tl.full(s.shape, 1.0, s.dtype)
    return y



@triton.jit
def _wasserstein(s, e, TERM: tl.constexpr, ORDER: tl.constexpr):
    if TERM == "g":
        if ORDER == 0:
            y = -s
        elif ORDER == 1:
            y = tl.full(s.shape, -1.0, s.dtype)
        else:
            y = tl.full(s.shape, 0.0, s.dtype)
    elif TERM == "g_real":
        if ORDER == 0:
            y = tl.full(s.shape, 0.0, s.dtype)
        elif ORDER == 1:
            y = tl.full(s.shape, 0.0, s.dtype)
        else:
            y = tl.full(s.shape, 0.0, s.dtype)
    elif TERM == "d_fake":
        if ORDER == 0:
            y = s
        elif ORDER == 1:
            y = tl.full(s.shape, 1.0, s.dtype)
        else:
            y = tl.full(s.shape, 0.0, s.dtype)
    else:
        if ORDER == 0:
            y = -s
        elif ORDER == 1:
            y = tl.full(s.shape, -1.0, s.dtype)
        else:
            y = tl.full(s.shape, 0.0, s.dtype)
    return y



@triton.jit
def loss_term(s, e, LOSS: tl.constexpr, TERM: tl.constexpr, ORDER: tl.constexpr):
    """A loss's term of scores s, or a derivative; e is the smoothing."""
    if LOSS == "nonsaturating":
        y = _nonsaturating(s, e, TERM, ORDER)
    elif LOSS == "saturating":
        y = _saturating(s, e, TERM, ORDER)
    elif LOSS == "relativistic":
        y = _relativistic(s, e, TERM, ORDER)
    elif LOSS == "hinge":
        y = _hinge(s, e, TERM, ORDER)
    elif LOSS == "least_squares":
        y = _least_squares(s, e, TERM, ORDER)
    else:
        y = _wasserstein(s, e, TERM, ORDER)
    return y



@triton.jit
def penalty_term(n, eps, KIND: tl.constexpr, ORDER: tl.constexpr):
    """A penalty in the squared norms n of gradients, or a derivative."""
    if KIND == "r1":
        if ORDER == 0:
            y = (0.5 * n)
        elif ORDER == 1:
            y = tl.full(n.shape, 0.5, n.dtype)
        else:
            y = tl.full(n.shape, 0.0, n.dtype)
    elif KIND == "r2":
        if ORDER == 0:
            y = (0.5 * n)
        elif ORDER == 1:
            y = tl.full(n.shape, 0.5, n.dtype)
        else:
            y = tl.full(n.shape, 0.0, n.dtype)
    elif KIND == "wgan_gp":
        if ORDER == 0:
            t0 = tl.sqrt((n + eps)) - 1.0
            y = (t0 * t0)
        elif ORDER == 1:
            t0 = tl.sqrt((n + eps))
            y = ((t0 - 1.0) / t0)
        else:
            t0 = tl.sqrt((n + eps))
            y = (0.5 / ((t0 * t0) * t0))
    else:
        if ORDER == 0:
            y = n
        elif ORDER == 1:
            y = tl.full(n.shape, 1.0, n.dtype)
        else:
            y = tl.full(n.shape, 0.0, n.dtype)
    return y
