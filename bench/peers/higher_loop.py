"""Peer `higher`: ``higher.innerloop_ctx`` around each player, task by task, as higher's own GAN and MAML examples do.

Both losses are computed before either player's ``diffopt.step``, so the play is simultaneous. The meta-gradient is taken of
``parameters(time=0)``. Nothing else to set: ``copy_initial_weights=False`` is what MAML needs.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import higher
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..cases import Problem, Step

VERSIONS = ("higher", "torch")


def variants(problem: Problem) -> dict[str, Callable[[], Step]]:
    return {"": lambda: _build(problem)}


def _build(problem: Problem) -> Step:
    case = problem.case
    generator, discriminator = copy.deepcopy(problem.generator), copy.deepcopy(problem.discriminator)
    optimizer_g = torch.optim.SGD(generator.parameters(), lr=case.rate)
    optimizer_d = torch.optim.SGD(discriminator.parameters(), lr=case.rate)

    def losses(g: nn.Module, d: nn.Module, real: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        fake, true = d(torch.cat([g(z), real])).split([len(z), len(real)])
        return F.softplus(-fake).mean(), F.softplus(fake).mean() + F.softplus(-true).mean()

    def task(t: int) -> Tensor:
        with (
            higher.innerloop_ctx(generator, optimizer_g, copy_initial_weights=False) as (g, step_g),
            higher.innerloop_ctx(discriminator, optimizer_d, copy_initial_weights=False) as (d, step_d),
        ):
            for k in range(case.inner_steps):
                loss_g, loss_d = losses(g, d, problem.real[t, k], problem.noise[t, k])
                step_g.step(loss_g)
                step_d.step(loss_d)
            loss_g, loss_d = losses(g, d, problem.query[t], problem.query_noise[t])
            of_g = torch.autograd.grad(loss_g, list(g.parameters(time=0)), retain_graph=True)
            of_d = torch.autograd.grad(loss_d, list(d.parameters(time=0)))
            return torch.cat([p.flatten() for p in (*of_g, *of_d)])

    return lambda: torch.stack([task(t) for t in range(case.tasks)]).mean(0)
