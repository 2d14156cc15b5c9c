"""Inner optimisers: the formulas of csrc/optimisers.h in Triton.

Made by ``python -m tests.triton_formulas`` from what the compiled core exports; not to be edited.
"""

import triton
import triton.language as tl


@triton.jit
def direction_of(kind, F, m0, m1, a, v0, v1, momentum, beta1, beta2, rest1, rest2, bias1, bias2, eps, past, norm, along, KINDS: tl.constexpr):
    """Of each task's own optimiser `kind`, a number in pymgan.contract.OPTIMISERS; KINDS has a bit for each that occurs."""
    result = F
    if (KINDS >> 0) & 1:  # sgd
        y = F
        result = tl.where(kind == 0, y, result)
    if (KINDS >> 1) & 1:  # normalised
        y = (F / norm)
        result = tl.where(kind == 1, y, result)
    if (KINDS >> 2) & 1:  # momentum
        y = ((momentum * m0) + F)
        result = tl.where(kind == 2, y, result)
    if (KINDS >> 3) & 1:  # nesterov
        y = (F + (momentum * ((momentum * m0) + F)))
        result = tl.where(kind == 3, y, result)
    if (KINDS >> 4) & 1:  # rmsprop
        y = (F / tl.sqrt((((beta2 * m0) + ((rest2 * F) * F)) + eps)))
        result = tl.where(kind == 4, y, result)
    if (KINDS >> 5) & 1:  # adam
        y = ((((beta1 * m0) + (rest1 * F)) / bias1) / tl.sqrt(((((beta2 * m1) + ((rest2 * F) * F)) / bias2) + eps)))
        result = tl.where(kind == 5, y, result)
    if (KINDS >> 6) & 1:  # optimistic
        y = (F + (past * (F - m0)))
        result = tl.where(kind == 6, y, result)
    if (KINDS >> 7) & 1:  # extragradient
        y = F
        result = tl.where(kind == 7, y, result)
    return result



@triton.jit
def m0_of(kind, F, m0, m1, a, v0, v1, momentum, beta1, beta2, rest1, rest2, bias1, bias2, eps, past, norm, along, KINDS: tl.constexpr):
    """Of each task's own optimiser `kind`, a number in pymgan.contract.OPTIMISERS; KINDS has a bit for each that occurs."""
    result = m0
    if (KINDS >> 0) & 1:  # sgd
        y = m0
        result = tl.where(kind == 0, y, result)
    if (KINDS >> 1) & 1:  # normalised
        y = m0
        result = tl.where(kind == 1, y, result)
    if (KINDS >> 2) & 1:  # momentum
        y = ((momentum * m0) + F)
        result = tl.where(kind == 2, y, result)
    if (KINDS >> 3) & 1:  # nesterov
        y = ((momentum * m0) + F)
        result = tl.where(kind == 3, y, result)
    if (KINDS >> 4) & 1:  # rmsprop
        y = ((beta2 * m0) + ((rest2 * F) * F))
        result = tl.where(kind == 4, y, result)
    if (KINDS >> 5) & 1:  # adam
        y = ((beta1 * m0) + (rest1 * F))
        result = tl.where(kind == 5, y, result)
    if (KINDS >> 6) & 1:  # optimistic
        y = F
        result = tl.where(kind == 6, y, result)
    if (KINDS >> 7) & 1:  # extragradient
        y = m0
        result = tl.where(kind == 7, y, result)
    return result



@triton.jit
def m1_of(kind, F, m0, m1, a, v0, v1, momentum, beta1, beta2, rest1, rest2, bias1, bias2, eps, past, norm, along, KINDS: tl.constexpr):
    """Of each task's own optimiser `kind`, a number in pymgan.contract.OPTIMISERS; KINDS has a bit for each that occurs."""
    result = m1
    if (KINDS >> 0) & 1:  # sgd
        y = m1
        result = tl.where(kind == 0, y, result)
    if (KINDS >> 1) & 1:  # normalised
        y = m1
        result = tl.where(kind == 1, y, result)
    if (KINDS >> 2) & 1:  # momentum
        y = m1
        result = tl.where(kind == 2, y, result)
    if (KINDS >> 3) & 1:  # nesterov
        y = m1
        result = tl.where(kind == 3, y, result)
    if (KINDS >> 4) & 1:  # rmsprop
        y = m1
        result = tl.where(kind == 4, y, result)
    if (KINDS >> 5) & 1:  # adam
        y = ((beta2 * m1) + ((rest2 * F) * F))
        result = tl.where(kind == 5, y, result)
    if (KINDS >> 6) & 1:  # optimistic
        y = m1
        result = tl.where(kind == 6, y, result)
    if (KINDS >> 7) & 1:  # extragradient
        y = m1
        result = tl.where(kind == 7, y, result)
    return result



@triton.jit
def w_of(kind, F, m0, m1, a, v0, v1, momentum, beta1, beta2, rest1, rest2, bias1, bias2, eps, past, norm, along, KINDS: tl.constexpr):
    """Of each task's own optimiser `kind`, a number in pymgan.contract.OPTIMISERS; KINDS has a bit for each that occurs."""
    result = a
    if (KINDS >> 0) & 1:  # sgd
        y = a
        result = tl.where(kind == 0, y, result)
    if (KINDS >> 1) & 1:  # normalised
        y = ((a - ((F / norm) * along)) / norm)
        result = tl.where(kind == 1, y, result)
    if (KINDS >> 2) & 1:  # momentum
        y = (v0 + a)
        result = tl.where(kind == 2, y, result)
    if (KINDS >> 3) & 1:  # nesterov
        y = (a + (v0 + (momentum * a)))
        result = tl.where(kind == 3, y, result)
    if (KINDS >> 4) & 1:  # rmsprop
        t0 = ((beta2 * m0) + ((rest2 * F) * F)) + eps
        t1 = tl.sqrt(t0)
        y = ((a / t1) + (((2.0 * rest2) * F) * (v0 - (((0.5 * a) * (F / t1)) / t0))))
        result = tl.where(kind == 4, y, result)
    if (KINDS >> 5) & 1:  # adam
        t0 = (((beta2 * m1) + ((rest2 * F) * F)) / bias2) + eps
        t1 = tl.sqrt(t0)
        y = ((rest1 * (v0 + (a / (bias1 * t1)))) + (((2.0 * rest2) * F) * (v1 - (((0.5 * a) * ((((beta1 * m0) + (rest1 * F)) / bias1) / t1)) / (t0 * bias2)))))
        result = tl.where(kind == 5, y, result)
    if (KINDS >> 6) & 1:  # optimistic
        y = ((a + (past * a)) + v0)
        result = tl.where(kind == 6, y, result)
    if (KINDS >> 7) & 1:  # extragradient
        y = a
        result = tl.where(kind == 7, y, result)
    return result



@triton.jit
def v0_of(kind, F, m0, m1, a, v0, v1, momentum, beta1, beta2, rest1, rest2, bias1, bias2, eps, past, norm, along, KINDS: tl.constexpr):
    """Of each task's own optimiser `kind`, a number in pymgan.contract.OPTIMISERS; KINDS has a bit for each that occurs."""
    result = v0
    if (KINDS >> 0) & 1:  # sgd
        y = v0
        result = tl.where(kind == 0, y, result)
    if (KINDS >> 1) & 1:  # normalised
        y = v0
        result = tl.where(kind == 1, y, result)
    if (KINDS >> 2) & 1:  # momentum
        y = (momentum * (v0 + a))
        result = tl.where(kind == 2, y, result)
    if (KINDS >> 3) & 1:  # nesterov
        y = (momentum * (v0 + (momentum * a)))
        result = tl.where(kind == 3, y, result)
    if (KINDS >> 4) & 1:  # rmsprop
        t0 = ((beta2 * m0) + ((rest2 * F) * F)) + eps
        y = (beta2 * (v0 - (((0.5 * a) * (F / tl.sqrt(t0))) / t0)))
        result = tl.where(kind == 4, y, result)
    if (KINDS >> 5) & 1:  # adam
        y = (beta1 * (v0 + (a / (bias1 * tl.sqrt(((((beta2 * m1) + ((rest2 * F) * F)) / bias2) + eps))))))
        result = tl.where(kind == 5, y, result)
    if (KINDS >> 6) & 1:  # optimistic
        y = -(past * a)
        result = tl.where(kind == 6, y, result)
    if (KINDS >> 7) & 1:  # extragradient
        y = v0
        result = tl.where(kind == 7, y, result)
    return result



@triton.jit
def v1_of(kind, F, m0, m1, a, v0, v1, momentum, beta1, beta2, rest1, rest2, bias1, bias2, eps, past, norm, along, KINDS: tl.constexpr):
    """Of each task's own optimiser `kind`, a number in pymgan.contract.OPTIMISERS; KINDS has a bit for each that occurs."""
    result = v1
    if (KINDS >> 0) & 1:  # sgd
        y = v1
        result = tl.where(kind == 0, y, result)
    if (KINDS >> 1) & 1:  # normalised
        y = v1
        result = tl.where(kind == 1, y, result)
    if (KINDS >> 2) & 1:  # momentum
        y = v1
        result = tl.where(kind == 2, y, result)
    if (KINDS >> 3) & 1:  # nesterov
        y = v1
        result = tl.where(kind == 3, y, result)
    if (KINDS >> 4) & 1:  # rmsprop
        y = v1
        result = tl.where(kind == 4, y, result)
    if (KINDS >> 5) & 1:  # adam
        t0 = (((beta2 * m1) + ((rest2 * F) * F)) / bias2) + eps
        y = (beta2 * (v1 - (((0.5 * a) * ((((beta1 * m0) + (rest1 * F)) / bias1) / tl.sqrt(t0))) / (t0 * bias2))))
        result = tl.where(kind == 5, y, result)
    if (KINDS >> 6) & 1:  # optimistic
        y = v1
        result = tl.where(kind == 6, y, result)
    if (KINDS >> 7) & 1:  # extragradient
        y = v1
        result = tl.where(kind == 7, y, result)
    return result
