"""Activations: the formulas of csrc/formulas.h in Triton.

Made by ``python -m tests.triton_formulas`` from what the compiled core exports; not to be edited.
"""

import triton
import triton.language as tl

from .arithmetic import expm1, log1p, maximum, tanh


@triton.jit
def _leaky_relu(x, p0, p1, ORDER: tl.constexpr):
    if ORDER == 0:
        y = tl.where(x > 0.0, x, (p0 * x))
    elif ORDER == 1:
        y = tl.where(x > 0.0, 1.0, p0)
    elif ORDER == 2:
        y = tl.full(x.shape, 0.0, x.dtype)
    else:
        y = tl.full(x.shape, 0.0, x.dtype)
    return y



@triton.jit
def _relu(x, p0, p1, ORDER: tl.constexpr):
    if ORDER == 0:
        y = maximum(x, 0.0)
    elif ORDER == 1:
        y = tl.where(x > 0.0, 1.0, 0.0)
    elif ORDER == 2:
        y = tl.full(x.shape, 0.0, x.dtype)
    else:
        y = tl.full(x.shape, 0.0, x.dtype)
    return y



@triton.jit
def _elu(x, p0, p1, ORDER: tl.constexpr):
    if ORDER == 0:
        y = tl.where(x > 0.0, x, (p0 * expm1(x)))
    elif ORDER == 1:
        y = tl.where(x > 0.0, 1.0, (p0 * tl.exp(x)))
    elif ORDER == 2:
        y = tl.where(x > 0.0, 0.0, (p0 * tl.exp(x)))
    else:
        y = tl.where(x > 0.0, 0.0, (p0 * tl.exp(x)))
    return y



@triton.jit
def _silu(x, p0, p1, ORDER: tl.constexpr):
    if ORDER == 0:
        t0 = tl.exp(-tl.abs(x))
        t1 = 1.0 + t0
        y = (x * tl.where(x > 0.0, (1.0 / t1), (t0 / t1)))
    elif ORDER == 1:
        t0 = tl.exp(-tl.abs(x))
        t1 = 1.0 + t0
        t2 = 1.0 / t1
        t3 = t0 / t1
        y = (tl.where(x > 0.0, t2, t3) * (1.0 + (x * tl.where(x > 0.0, t3, t2))))
    elif ORDER == 2:
        t0 = tl.exp(-tl.abs(x))
        t1 = 1.0 + t0
        t2 = 1.0 / t1
        t3 = t0 / t1
        t4 = tl.where(x > 0.0, t2, t3)
        t5 = tl.where(x > 0.0, t3, t2)
        y = ((t4 * t5) * (2.0 + (x * (t5 - t4))))
    else:
        t0 = tl.exp(-tl.abs(x))
        t1 = 1.0 + t0
        t2 = 1.0 / t1
        t3 = t0 / t1
        t4 = tl.where(x > 0.0, t2, t3)
        t5 = tl.where(x > 0.0, t3, t2)
        t6 = t4 * t5
        t7 = t5 - t4
        y = (t6 * ((t7 * (3.0 + (x * t7))) - ((2.0 * x) * t6)))
    return y



@triton.jit
def _softplus(x, p0, p1, ORDER: tl.constexpr):
    if ORDER == 0:
        t0 = p0 * x
        y = tl.where((t0 - p1) > 0.0, x, ((maximum(t0, 0.0) + log1p(tl.exp(-tl.abs(t0)))) / p0))
    elif ORDER == 1:
        t0 = p0 * x
        t1 = tl.exp(-tl.abs(t0))
        t2 = 1.0 + t1
        y = tl.where((t0 - p1) > 0.0, 1.0, tl.where(t0 > 0.0, (1.0 / t2), (t1 / t2)))
    elif ORDER == 2:
        t0 = p0 * x
        t1 = tl.exp(-tl.abs(t0))
        t2 = 1.0 + t1
        t3 = 1.0 / t2
        t4 = t1 / t2
        y = tl.where((t0 - p1) > 0.0, 0.0, ((p0 * tl.where(t0 > 0.0, t3, t4)) * tl.where(t0 > 0.0, t4, t3)))
    else:
        t0 = p0 * x
        t1 = tl.exp(-tl.abs(t0))
        t2 = 1.0 + t1
        t3 = t1 / t2
        t4 = 1.0 / t2
        t5 = tl.where(t0 > 0.0, t3, t4)
        t6 = tl.where(t0 > 0.0, t4, t3)
        y = ((p0 * (t5 - t6)) * tl.where((t0 - p1) > 0.0, 0.0, ((p0 * t6) * t5)))
    return y



@triton.jit
def _tanh(x, p0, p1, ORDER: tl.constexpr):
    if ORDER == 0:
        y = tanh(x)
    elif ORDER == 1:
        y = ((1.0 - x) * (1.0 + x))
    elif ORDER == 2:
        y = ((-2.0 * x) * ((1.0 - x) * (1.0 + x)))
    else:
        y = (((1.0 - x) * (1.0 + x)) * (((6.0 * x) * x) - 2.0))
    return y



@triton.jit
def _sigmoid(x, p0, p1, ORDER: tl.constexpr):
    if ORDER == 0:
        t0 = tl.exp(-tl.abs(x))
        t1 = 1.0 + t0
        y = tl.where(x > 0.0, (1.0 / t1), (t0 / t1))
    elif ORDER == 1:
        y = (x * (1.0 - x))
    elif ORDER == 2:
        y = ((x * (1.0 - x)) * (1.0 - (2.0 * x)))
    else:
        t0 = x * (1.0 - x)
        t1 = 1.0 - (2.0 * x)
        y = (t0 * ((t1 * t1) - (2.0 * t0)))
    return y



@triton.jit
def _gelu(x, p0, p1, ORDER: tl.constexpr):
    if ORDER == 0:
        y = (x * (0.5 * (1.0 + tl.erf((0.7071067811865476 * x)))))
    elif ORDER == 1:
        y = ((0.5 * (1.0 + tl.erf((0.7071067811865476 * x)))) + (x * (0.3989422804014327 * tl.exp((-0.5 * (x * x))))))
    elif ORDER == 2:
        t0 = x * x
        y = ((0.3989422804014327 * tl.exp((-0.5 * t0))) * (2.0 - t0))
    else:
        t0 = x * x
        y = (((0.3989422804014327 * tl.exp((-0.5 * t0))) * x) * (t0 - 4.0))
    return y



@triton.jit
def _gelu_tanh(x, p0, p1, ORDER: tl.constexpr):
    if ORDER == 0:
        t0 = 1.5957691216057308 * (x + (((0.044715 * x) * x) * x))
        t1 = tl.exp(-tl.abs(t0))
        t2 = 1.0 + t1
        y = (x * tl.where(t0 > 0.0, (1.0 / t2), (t1 / t2)))
    elif ORDER == 1:
        t0 = 1.5957691216057308 * (x + (((0.044715 * x) * x) * x))
        t1 = tl.exp(-tl.abs(t0))
        t2 = 1.0 + t1
        t3 = 1.0 / t2
        t4 = t1 / t2
        t5 = tl.where(t0 > 0.0, t3, t4)
        y = (t5 + (x * ((t5 * tl.where(t0 > 0.0, t4, t3)) * (1.5957691216057308 * (1.0 + (0.134145 * (x * x)))))))
    elif ORDER == 2:
        t0 = 1.5957691216057308 * (x + (((0.044715 * x) * x) * x))
        t1 = tl.exp(-tl.abs(t0))
        t2 = 1.0 + t1
        t3 = 1.0 / t2
        t4 = t1 / t2
        t5 = tl.where(t0 > 0.0, t3, t4)
        t6 = tl.where(t0 > 0.0, t4, t3)
        t7 = t5 * t6
        t8 = 1.5957691216057308 * (1.0 + (0.134145 * (x * x)))
        y = ((2.0 * (t7 * t8)) + (x * ((((t7 * (t6 - t5)) * t8) * t8) + (t7 * (0.4281288976356015 * x)))))
    else:
        t0 = 1.5957691216057308 * (x + (((0.044715 * x) * x) * x))
        t1 = tl.exp(-tl.abs(t0))
        t2 = 1.0 + t1
        t3 = 1.0 / t2
        t4 = t1 / t2
        t5 = tl.where(t0 > 0.0, t3, t4)
        t6 = tl.where(t0 > 0.0, t4, t3)
        t7 = t5 * t6
        t8 = t7 * (t6 - t5)
        t9 = 1.5957691216057308 * (1.0 + (0.134145 * (x * x)))
        t10 = 0.4281288976356015 * x
        y = ((3.0 * (((t8 * t9) * t9) + (t7 * t10))) + (x * ((((((t7 * (1.0 - (6.0 * t7))) * t9) * t9) * t9) + (((3.0 * t8) * t9) * t10)) + (t7 * 0.4281288976356015))))
    return y



@triton.jit
def _negative_part(x, p0, p1, ORDER: tl.constexpr):
    if ORDER == 0:
        y = tl.where(x > 0.0, 0.0, x)
    elif ORDER == 1:
        y = tl.where(x > 0.0, 0.0, 1.0)
    elif ORDER == 2:
        y = tl.full(x.shape, 0.0, x.dtype)
    else:
        y = tl.full(x.shape, 0.0, x.dtype)
    return y



@triton.jit
def _inverse_root(x, p0, p1, ORDER: tl.constexpr):
    if ORDER == 0:
        y = (1.0 / tl.sqrt((x + p0)))
    elif ORDER == 1:
        y = (-0.5 * (x * (x * x)))
    elif ORDER == 2:
        t0 = x * x
        y = ((0.75 * (x * t0)) * t0)
    else:
        t0 = x * x
        y = (((-1.875 * (x * t0)) * t0) * t0)
    return y



@triton.jit
def activation(x, p0, p1, KIND: tl.constexpr, ORDER: tl.constexpr):
    """f (order 0, of x), or a derivative at `ref`, which is the activation's output or what went in."""
    if KIND == "leaky_relu":
        y = _leaky_relu(x, p0, p1, ORDER)
    elif KIND == "relu":
        y = _relu(x, p0, p1, ORDER)
    elif KIND == "elu":
        y = _elu(x, p0, p1, ORDER)
    elif KIND == "silu":
        y = _silu(x, p0, p1, ORDER)
    elif KIND == "softplus":
        y = _softplus(x, p0, p1, ORDER)
    elif KIND == "tanh":
        y = _tanh(x, p0, p1, ORDER)
    elif KIND == "sigmoid":
        y = _sigmoid(x, p0, p1, ORDER)
    elif KIND == "gelu":
        y = _gelu(x, p0, p1, ORDER)
    elif KIND == "gelu_tanh":
        y = _gelu_tanh(x, p0, p1, ORDER)
    elif KIND == "negative_part":
        y = _negative_part(x, p0, p1, ORDER)
    elif KIND == "inverse_root":
        y = _inverse_root(x, p0, p1, ORDER)
    else:
        y = x
        if ORDER > 0:
            y = tl.full(x.shape, 1.0 if ORDER == 1 else 0.0, x.dtype)
    return y
