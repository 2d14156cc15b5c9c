"""The cpu engine: C++ and SIMD."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

import pymgan._core as _core
from pymgan.address_engine import AddressEngine
from pymgan.buffers import BufferPool
from pymgan.checks import check_distance, check_noise
from pymgan.contract import Rng

__all__ = ["CpuEngine"]


class CpuEngine(AddressEngine):
    """Executes the program with C++ and SIMD, one task per core at a time. See :class:`~pymgan.contract.Engine`.

    Results are the same bits for any number of threads. float64 is correct but not tuned.
    """

    name = "cpu"

    def __init__(self, *arguments: Any, dtype: torch.dtype, threads: int, isa: str, **options: Any) -> None:
        self.threads, self._isa = threads, isa
        super().__init__(
            *arguments, dtype=dtype, device=torch.device("cpu"), pool=BufferPool(dtype), **options
        )

    def _make_core(self, game: Any) -> Any:
        maker = _core.CpuEngine32 if self.dtype == torch.float32 else _core.CpuEngine64
        return maker(self.plan.core, game, self.storage, self._isa)

    @property
    def isa(self) -> str:
        """The instruction set in use."""
        return str(self._core.isa)

    def _execute(self, what: str, shape: tuple[Any, ...], call: dict[str, Any]) -> None:
        threads = min(self.threads, call["tasks"])
        call = {**call, "threads": threads}
        if what == "meta_gradient":
            size = self._core.meta_gradient_workspace(call)
        elif what == "adapt":
            size = self._core.adapt_workspace(threads)
        else:
            size = getattr(self._core, f"{what}_workspace")(*shape, threads)
        workspace = self._pool.take(size)
        getattr(self._core, what)({**call, "workspace": workspace.data_ptr()})
        self._pool.give(workspace)

    def noise(self, rng: Rng, tasks: int, n: int, *, step: int = 0, stream: int = 0) -> Tensor:
        """Standard normals [T, n, *latent] of (seed, task, step, stream); see :meth:`pymgan.contract.Engine.noise`."""
        numbers = check_noise(rng, tasks, n, step, stream)
        features = math.prod(self.latent)
        out = self._empty(tasks, n, *self.latent)
        steps = torch.full((tasks,), step, dtype=torch.int64)
        workspace = self._pool.take(n * (-(-features // 16) * 16))
        self._core.noise(
            rng.seed,
            numbers.data_ptr(),
            steps.data_ptr(),
            stream,
            tasks,
            n,
            features,
            out.data_ptr(),
            workspace.data_ptr(),
        )
        self._pool.give(workspace)
        return out

    def distance(self, kind: str, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """(value [T] float64, cotangent of a) of a distance between samples [T, B, *]; kind "energy" (unbiased)."""
        check_distance(kind, a, b)
        a, b = a.to(self.dtype).contiguous(), b.to(self.dtype).contiguous()
        value = torch.empty(a.shape[0], dtype=torch.float64)
        cotangent = torch.empty_like(a)
        _core.distance(
            a.dtype == torch.float64,
            {
                "tasks": a.shape[0],
                "a_count": a.shape[1],
                "b_count": b.shape[1],
                "features": math.prod(a.shape[2:]),
                "threads": min(self.threads, a.shape[0]),
                "a": a.data_ptr(),
                "b": b.data_ptr(),
                "value": value.data_ptr(),
                "cotangent": cotangent.data_ptr(),
            },
        )
        return value, cotangent
