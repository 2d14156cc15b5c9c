"""The CUDA engine's own code as an engine on the host: its blocks run one after the other, the elements of each phase in a random
order. For tests; csrc/cuda/block.h says what it finds."""

from __future__ import annotations

import math

import pymgan._core as _core
import torch
from torch import Tensor

from pymgan.buffers import BufferPool
from pymgan.checks import check_noise
from pymgan.contract import Data, MetaGradient, Objective, Rng, Schedule
from pymgan.cpu_engine import CpuEngine
from pymgan.gan import GAN
from pymgan.meta_gradient import compose
from pymgan.plan import compile_game, compile_plan

__all__ = ["CudaHostEngine"]


class CudaHostEngine(CpuEngine):
    """See :class:`~pymgan.contract.Engine`."""

    name = "cuda-host"

    def __init__(
        self,
        gan: GAN,
        *,
        fakes: int,
        reals: int,
        play: str,
        optimisers: tuple[str, ...],
        momentum: float,
        eps: float,
        storage: str = "all",
        betas: tuple[float, float] = (0.9, 0.999),
    ) -> None:
        self.gan, self.plan = gan, compile_plan(gan)
        self.fakes, self.reals, self.play, self.storage = fakes, reals, play, storage
        self.optimisers, self.dtype, self.device = optimisers, torch.float32, torch.device("cpu")
        self.threads = 1 << 30  # workspaces are a task's each
        game = compile_game(
            gan,
            fakes=fakes,
            reals=reals,
            play=play,
            optimisers=optimisers,
            momentum=momentum,
            betas=betas,
            eps=eps,
        )
        self._pool = BufferPool(self.dtype)
        self._core = _core.CudaHostEngine(self.plan.core, game, storage)
        self.moments = self._core.program.moments

    def noise(self, rng: Rng, tasks: int, n: int, *, step: int = 0, stream: int = 0) -> Tensor:
        numbers = check_noise(rng, tasks, n, step, stream)
        out = torch.empty(tasks, n, *self.latent)
        features = math.prod(self.latent)
        self._core.noise(rng.seed, numbers.data_ptr(), step, stream, tasks, n, features, out.data_ptr())
        return out

    def meta_gradient(
        self,
        phi: Tensor,
        data: Data,
        schedule: Schedule,
        rng: Rng,
        objective: Objective,
        *,
        order: int = 2,
        rates: bool = False,
    ) -> MetaGradient:
        return compose(self, phi, data, schedule, rng, objective, order=order, rates=rates)
