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
    device: str = "cpu",
    threads: int | None = None,
    dtype: torch.dtype = torch.float32,
    storage: str = "auto",
) -> tuple[Step, pymgan.Engine]:
    """Compile `problem` for one engine.

    Args:
        problem: the case's networks and batches.
        engine: a name that ``pymgan.compile`` knows; after a colon, the precision of its products.
        which: the pass.
        device: "cpu" or "cuda", where the engine and all its tensors are.
        threads: cores to use.
        dtype: float32, or float64 for the oracle.
        storage: what an inner step keeps for its pull-back, as ``pymgan.compile`` names it.

    Returns:
        The pass, and the engine behind it.
    """
    case = problem.case
    gan = pymgan.GAN(problem.generator, problem.discriminator, latent=(case.latent,))
    name, _, precision = engine.partition(":")
    made = pymgan.compile(
        gan,
        fakes=case.batch,
        reals=case.batch,
        engine=name,
        precision=precision or "float32",
        device=device,
        threads=threads,
        dtype=dtype,
        storage=storage,
    )
    given = problem.to(made.device, dtype)
    phi, data = given.phi, pymgan.Data(real=given.real, noise=given.noise)
    rate = torch.tensor([case.rate, case.rate], dtype=torch.float64, device=made.device)
    schedule = pymgan.Schedule(rate=rate)
    rng = pymgan.Rng(seed=0, tasks=torch.arange(case.tasks))
    game = pymgan.Objective(query=given.query, samples=0, losses=(1.0, 1.0), noise=given.query_noise)

    def meta() -> Tensor:
        return made.meta_gradient(phi, data, schedule, rng, game).gradient

    def first() -> Tensor:
        return made.meta_gradient(phi, data, schedule, rng, game, order=1).gradient

    def adapt() -> Tensor:
        return made.adapt(phi, data, schedule, rng).phi

    runs: dict[Pass, Callable[[], Tensor]] = {"meta": meta, "first": first, "adapt": adapt}
    return Step(run=runs[which], read=lambda result: result), made
