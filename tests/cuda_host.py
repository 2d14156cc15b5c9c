"""The CUDA engine's own code as an engine on the host: its blocks run one after the other, the elements of each phase in a random
order. For tests; csrc/cuda/block.h says what it finds."""

from __future__ import annotations

from typing import Any

import pymgan._core as _core
import torch

from pymgan.cuda_engine import CudaEngine

__all__ = ["CudaHostEngine"]


class CudaHostEngine(CudaEngine):
    """See :class:`~pymgan.contract.Engine`.

    Args:
        shared: bytes of shared memory that a block has for a task's buffers.
    """

    name = "cuda-host"

    def __init__(
        self, *arguments: Any, shared: int, betas: tuple[float, float] = (0.9, 0.999), **options: Any
    ) -> None:
        self._shared = shared // 4
        super().__init__(*arguments, betas=betas, dtype=torch.float32, device=torch.device("cpu"), **options)

    def _make_core(self, game: Any) -> Any:
        return _core.CudaEngine(self.plan.core, game, self.storage, self._precision, -1, self._shared)

    def _stream(self) -> int:
        return 0
