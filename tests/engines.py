"""Every engine and instruction set that this machine can execute, as the battery wants them."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import torch

import pymgan
from pymgan.contract import Engine
from pymgan.engine import instruction_sets
from tests.cuda_host import CudaHostEngine
from tests.oracle_cases import Case

Make = Callable[[Case], Engine]
# Bytes: temps in global memory, spread over a team, in one block with some of the buffers, or with all.
SHARED = (0, 1 << 10, 1 << 12, 227 << 10)


def make(
    engine: str, *, isa: str | None = None, dtype: torch.dtype = torch.float32, **options: object
) -> Make:
    """An engine by name; options override what the case says."""

    def build(case: Case) -> Engine:
        arguments: dict[str, object] = {
            **case.inner_loop(),
            "storage": case.storage,
            "dtype": dtype,
            "engine": engine,
            "isa": isa,
        }
        return pymgan.compile(case.gan, **{**arguments, **options})  # type: ignore[arg-type]

    return build


def cuda_host(case: Case) -> Engine:
    """The CUDA engine's host build; which of its buffers fit into shared memory differs from case to case."""
    shared = SHARED[zlib.crc32(case.name.encode()) % len(SHARED)]
    return CudaHostEngine(case.gan, **case.inner_loop(), storage=case.storage, shared=shared)


def all_engines() -> dict[str, Make]:
    """By id: cpu on each instruction set and torch, in both dtypes, and the CUDA engine's host build."""
    found: dict[str, Make] = {"cuda-host-float32": cuda_host}
    for name, dtype in (("float32", torch.float32), ("float64", torch.float64)):
        for isa in instruction_sets()[1]:
            found[f"cpu-{isa}-{name}"] = make("cpu", isa=isa, dtype=dtype)
        found[f"torch-{name}"] = make("torch", dtype=dtype)
    return found
