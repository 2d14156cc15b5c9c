"""Peer `higher`: ``higher.innerloop_ctx`` around each player, task by task, as higher's own GAN and MAML examples do.

Both losses are computed before either player's ``diffopt.step``, so the play is simultaneous. The meta-gradient is taken of
``parameters(time=0)``. Nothing else to set: ``copy_initial_weights=False`` is what MAML needs, and
``track_higher_grads=False`` is what the documentation says for loops that nobody differentiates (passes `first` and `adapt`); a
``step`` then frees its graph, so the two losses share G's forward pass but no graph, as in any GAN's training loop.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import higher
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..cases import PASSES, Pass, Problem, Step

__all__ = ["PASSES", "VERSIONS", "variants"]

VERSIONS = ("higher", "torch")


def variants(problem: Problem, which: Pass) -> dict[str, Callable[[], Step]]:
    return {"": lambda: _build(problem, which)}


def _build(problem: Problem, which: Pass) -> Step:
    case = problem.case
    generator, discriminator = copy.deepcopy(problem.generator), copy.deepcopy(problem.discriminator)
    optimizer_g = torch.optim.SGD(generator.parameters(), lr=case.rate)
    optimizer_d = torch.optim.SGD(discriminator.parameters(), lr=case.rate)
    options = {"copy_initial_weights": False, "track_higher_grads": which == "meta"}
    time = 0 if which == "meta" else -1  # of the parameters that the gradient is taken of

    def losses(g: nn.Module, d: nn.Module, real: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        x = g(z)
        fake, true = d(torch.cat([x if which == "meta" else x.detach(), real])).split([len(z), len(real)])
        loss_g = F.softplus(-(fake if which == "meta" else d(x))).mean()
        return loss_g, F.softplus(fake).mean() + F.softplus(-true).mean()

    def task(t: int) -> list[Tensor]:
        with (
            higher.innerloop_ctx(generator, optimizer_g, **options) as (g, step_g),
            higher.innerloop_ctx(discriminator, optimizer_d, **options) as (d, step_d),
        ):
            for k in range(case.inner_steps):
                loss_g, loss_d = losses(g, d, problem.real[t, k], problem.noise[t, k])
                step_g.step(loss_g)
                step_d.step(loss_d)
            if which == "adapt":
                return [*g.parameters(), *d.parameters()]
            loss_g, loss_d = losses(g, d, problem.query[t], problem.query_noise[t])
            of_g = torch.autograd.grad(loss_g, list(g.parameters(time=time)), retain_graph=True)
            of_d = torch.autograd.grad(loss_d, list(d.parameters(time=time)))
            return [*of_g, *of_d]

    def run() -> Tensor:
        each = torch.stack([torch.cat([p.detach().flatten() for p in task(t)]) for t in range(case.tasks)])
        return each if which == "adapt" else each.mean(0)

    return Step(run, lambda result: result)
