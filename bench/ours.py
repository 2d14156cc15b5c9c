"""The passes of the bench through an engine of pymgan. Serves every engine, the float64 oracle too."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

import pymgan

from .cases import Pass, Problem, Step


def build(
    problem: Problem,
    engine: str,
    which: Pass = "meta",
    *,
    threads: int | None = None,
    dtype: torch.dtype = torch.float32,
    storage: str = "auto",
) -> tuple[Step, pymgan.Engine]:
    """Compile `problem` for one engine.

    Args:
        problem: the case's networks and batches.
        engine: a name that ``pymgan.compile`` knows.
        which: the pass.
        threads: cores to use.
        dtype: float32, or float64 for the oracle.
        storage: what an inner step keeps for its pull-back, as ``pymgan.compile`` names it.

    Returns:
        The pass, and the engine behind it.
    """
    case = problem.case
    gan = pymgan.GAN(problem.generator, problem.discriminator, latent=(case.latent,))
    made = pymgan.compile(
        gan,
        fakes=case.batch,
        reals=case.batch,
        engine=engine,
        threads=threads,
        dtype=dtype,
        storage=storage,
    )
    phi = problem.phi.to(dtype)
    data = pymgan.Data(real=problem.real.to(dtype), noise=problem.noise.to(dtype))
    query = pymgan.Data(real=problem.query.to(dtype), noise=problem.query_noise.to(dtype))
    schedule = pymgan.Schedule(rate=torch.tensor([case.rate, case.rate], dtype=torch.float64))
    rng = pymgan.Rng(seed=0, tasks=torch.arange(case.tasks))
    split = made.generator_parameters
    mean = torch.full((case.tasks,), 1 / case.tasks, dtype=torch.float64)

    def meta() -> Tensor:
        adapted = made.adapt(phi, data, schedule, rng, keep=True)
        # The game's two cotangents: the full gradients of L_G and of L_D at phi_K.
        # Of v_0 each player keeps its own half.
        cotangents = made.gradients(adapted.phi, query, rng, full=True).gradient
        v0 = made.pullback(adapted.saved, cotangents, keep=("G", "D"), weight=mean).v0
        return torch.cat([v0[0, :split], v0[1, split:]])

    def first() -> Tensor:
        adapted = made.adapt(phi, data, schedule, rng)
        return made.gradients(adapted.phi, query, rng).gradient.mean(dim=0)

    def adapt() -> Tensor:
        return made.adapt(phi, data, schedule, rng).phi

    runs: dict[Pass, Callable[[], Tensor]] = {"meta": meta, "first": first, "adapt": adapt}
    return Step(run=runs[which], read=lambda result: result), made
