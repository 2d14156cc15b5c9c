"""Functions of numbers that Triton's language has not, to within a few roundings, and those that formulas are written in."""

import triton
import triton.language as tl


@triton.jit
def expm1(x):
    """exp(x) - 1 without cancellation (Kahan): what rounding did to exp(x) is undone by its logarithm."""
    u = tl.exp(x)
    near = tl.where(u == 1.0, 1.0, tl.log(u))  # neither a division by 0
    y = tl.where(u == 1.0, x, (u - 1.0) * (x / near))
    return tl.where((u < 1e-10) | (u > 1e30), u - 1.0, y)  # nor by an infinity


@triton.jit
def log1p(x):
    """log(1 + x) of x >= 0, in the same way."""
    u = 1.0 + x
    rest = tl.where(u == 1.0, 1.0, u - 1.0)
    return tl.where(u == 1.0, x, tl.log(u) * (x / rest))


@triton.jit
def tanh(x):
    t = expm1(-2.0 * tl.abs(x))
    y = -t / (t + 2.0)
    return tl.where(x < 0.0, -y, y)


@triton.jit
def maximum(a, b):
    """A NaN stays one."""
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def is_finite(x):
    return tl.abs(x) < float("inf")


@triton.jit
def multiply(x, y, acc, PRECISION: tl.constexpr):
    """acc + x y. "bf16 in float32" is what Triton's interpreter, which does not multiply bf16, has for it."""
    if PRECISION == "bf16 in float32":
        x, y = x.to(tl.bfloat16).to(tl.float32), y.to(tl.bfloat16).to(tl.float32)
        acc = tl.dot(x, y, acc, input_precision="ieee", out_dtype=acc.dtype)
    elif PRECISION == "bf16":
        acc = tl.dot(x.to(tl.bfloat16), y.to(tl.bfloat16), acc, out_dtype=acc.dtype)
    else:
        acc = tl.dot(x, y, acc, input_precision=PRECISION, out_dtype=acc.dtype)
    return acc
