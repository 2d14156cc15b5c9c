"""The cuda engine: a block of threads a task executes a whole call in one launch."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

import pymgan._core as _core
from pymgan.address_engine import AddressEngine
from pymgan.buffers import DeviceBuffers
from pymgan.checks import check_distance, check_noise
from pymgan.contract import Rng

__all__ = ["CudaEngine"]


class CudaEngine(AddressEngine):
    """Executes the program with the kernel of ``csrc/cuda``. See :class:`~pymgan.contract.Engine`.

    A call goes to torch's current stream, and into a CUDA graph while one is captured: then the values of its arguments are not
    looked at, they have to be on the device, `Rng.tasks` too, and a call of the same shape has to come before, which uploads what
    it needs. Results are the same bits from call to call on one device. float32 alone.
    """

    name = "cuda"

    def __init__(
        self,
        *arguments: Any,
        dtype: torch.dtype,
        device: torch.device,
        precision: str = "float32",
        **options: Any,
    ) -> None:
        if dtype != torch.float32:
            raise NotImplementedError(
                f"[compile] dtype: expected torch.float32 for the cuda engine, got {dtype}"
            )
        self.threads, self._precision = 1, precision
        self._launches: dict[tuple[Any, ...], tuple[Any, Tensor]] = {}
        self._last: tuple[str, Any, int] | None = None
        super().__init__(*arguments, dtype=dtype, device=device, pool=DeviceBuffers(dtype, device), **options)

    def _make_core(self, game: Any) -> Any:
        return _core.CudaEngine(self.plan.core, game, self.storage, self._precision, self.device.index)

    def _stream(self) -> int:
        """The address of torch's current stream."""
        return int(torch.cuda.current_stream(self.device).cuda_stream)

    def _prepared(self, what: str, tasks: int, shape: tuple[Any, ...]) -> Any:
        """The core's launch for calls of this shape; its constants are uploaded once."""
        key = (
            what,
            self._core.room(tasks),
            *(tuple(part) if isinstance(part, list) else part for part in shape),
        )
        if key not in self._launches:
            launch = getattr(self._core, f"prepare_{what}")(tasks, *shape)
            constants = torch.frombuffer(bytearray(launch.constants), dtype=torch.uint8).to(self.device)
            launch.place(constants.data_ptr())
            self._launches[key] = launch, constants
        return self._launches[key][0]

    def _execute(self, what: str, shape: tuple[Any, ...], call: dict[str, Any]) -> None:
        launch = self._prepared(what, call["tasks"], shape)
        elements = call["tasks"] * launch.workspace
        try:
            workspace = self._pool.take(elements)
        except torch.OutOfMemoryError as error:
            raise RuntimeError(
                f"[cuda] {what}: expected {4 * elements:,} bytes of device memory for the buffers of {call['tasks']} tasks, "
                "got less; storage='nested' or engine='triton' needs fewer, and so do fewer tasks at a time"
            ) from error
        call = {**call, "threads": 1, "workspace": workspace.data_ptr(), "stream": self._stream()}
        getattr(self._core, what)(launch, call)
        self._pool.give(workspace)
        self._last = what, launch, call["tasks"]

    def noise(self, rng: Rng, tasks: int, n: int, *, step: int = 0, stream: int = 0) -> Tensor:
        """Standard normals [T, n, *latent] of (seed, task, step, stream); see :meth:`pymgan.contract.Engine.noise`."""
        numbers = check_noise(rng, tasks, n, step, stream).to(self.device)
        out = self._empty(tasks, n, *self.latent)
        self._core.noise(
            {
                "tasks": tasks,
                "numbers": n * math.prod(self.latent),
                "seed": rng.seed,
                "task_numbers": numbers.data_ptr(),
                "step": step,
                "noise_stream": stream,
                "out": out.data_ptr(),
                "stream": self._stream(),
            }
        )
        return out

    def distance(self, kind: str, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """(value [T] float64, cotangent of a) of a distance between samples [T, B, *]; kind "energy" (unbiased)."""
        check_distance(kind, a, b)
        dtype = a.dtype
        a, b = (x.detach().to(self.device, self.dtype).contiguous() for x in (a, b))
        value = self._zeros(torch.float64, len(a))
        cotangent = torch.empty_like(a)
        self._core.distance(
            {
                "tasks": a.shape[0],
                "a_count": a.shape[1],
                "b_count": b.shape[1],
                "features": math.prod(a.shape[2:]),
                "threads": 1,
                "a": a.data_ptr(),
                "b": b.data_ptr(),
                "value": value.data_ptr(),
                "cotangent": cotangent.data_ptr(),
                "stream": self._stream(),
            }
        )
        return value, cotangent.to(dtype)

    def occupancy(self) -> dict[str, Any]:
        """What the launch of the last call takes of a multiprocessor.

        Returns:
            `call` and its `tasks`, `registers` (of a thread), `shared_bytes` (of a block), `team` (blocks that work on a task),
            `threads` (of a block), `blocks_per_multiprocessor`, `multiprocessors`, `occupancy` (warps that a multiprocessor
            holds, of the most), and `buffers`: (name, bytes, whether in shared memory) of each buffer of a task.

        Raises:
            RuntimeError: there was no call yet.
        """
        if self._last is None:
            raise RuntimeError("[cuda] occupancy: expected a call of this engine before, got none")
        what, launch, tasks = self._last
        report = dict(self._core.occupancy(launch))
        most = report.pop("threads_per_multiprocessor")
        report["occupancy"] = report["blocks_per_multiprocessor"] * report["threads"] / max(most, 1)
        buffers = [(name, 4 * elements, shared) for name, elements, shared in launch.buffers if elements]
        return {"call": what, "tasks": tasks, **report, "buffers": buffers}
