"""Triton kernels of the triton engine, one file for an operation or a small family, each kernel beside its launcher.

A launcher takes tensors whose first dimension is the T tasks; what belongs to one task is contiguous, and only the stride between
tasks is free, so operands may be parts of larger buffers. Samples are ``[T, rows, columns]``, ``[T, rows]`` is one number a
sample, and parameter-shaped operands are ``[T, P]`` in torch's flat order. Grids begin with the task. Absent operands are None.

No float is ever added atomically: sums that span programs go through partial sums (`sums.py`), added in a fixed order.
"""
