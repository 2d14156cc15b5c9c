"""Peer `autograd`: task by task, ``torch.autograd.grad(..., create_graph=True)``, no vmap.

This is what a training loop written by hand does, and what higher, learn2learn and TorchOpt do inside.
Parameters are lists, the modules are called through ``functional_call``. One graph a task serves both
cotangents (``retain_graph``). Passes without a meta-gradient create no graph beyond the step.
Settings tried, both run by the bench, which times the faster:
    shared   both losses from one forward pass through D, over the concatenated batch
    apart    one forward pass through D for fakes, one for reals
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from ..cases import PASSES, Pass, Problem, Step

__all__ = ["PASSES", "VERSIONS", "variants"]

VERSIONS = ("torch",)


def variants(problem: Problem, which: Pass) -> dict[str, Callable[[], Step]]:
    return {
        "shared": lambda: _build(problem, which, shared=True),
        "apart": lambda: _build(problem, which, shared=False),
    }


def _build(problem: Problem, which: Pass, shared: bool) -> Step:
    case = problem.case
    graph = which == "meta"
    g0 = [p.detach().clone().requires_grad_() for p in problem.generator.parameters()]
    d0 = [p.detach().clone().requires_grad_() for p in problem.discriminator.parameters()]
    names_g = [name for name, _ in problem.generator.named_parameters()]
    names_d = [name for name, _ in problem.discriminator.named_parameters()]

    def call(module: nn.Module, names: list[str], parameters: list[Tensor], x: Tensor) -> Tensor:
        return functional_call(module, dict(zip(names, parameters, strict=True)), (x,))

    def losses(g: list[Tensor], d: list[Tensor], real: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        x = call(problem.generator, names_g, g, z)
        if shared:
            fake, true = call(problem.discriminator, names_d, d, torch.cat([x, real])).split(
                [len(x), len(real)]
            )
        else:
            fake = call(problem.discriminator, names_d, d, x)
            true = call(problem.discriminator, names_d, d, real)
        return F.softplus(-fake).mean(), F.softplus(fake).mean() + F.softplus(-true).mean()

    def descend(parameters: list[Tensor], gradients: tuple[Tensor, ...]) -> list[Tensor]:
        moved = [p - case.rate * s for p, s in zip(parameters, gradients, strict=True)]
        return moved if graph else [p.detach().requires_grad_() for p in moved]

    def task(t: int) -> list[Tensor]:
        g, d = g0, d0
        for k in range(case.inner_steps):
            loss_g, loss_d = losses(g, d, problem.real[t, k], problem.noise[t, k])
            step_g = torch.autograd.grad(loss_g, g, create_graph=graph, retain_graph=True)
            step_d = torch.autograd.grad(loss_d, d, create_graph=graph)
            g, d = descend(g, step_g), descend(d, step_d)
        if which == "adapt":
            return [*g, *d]
        loss_g, loss_d = losses(g, d, problem.query[t], problem.query_noise[t])
        of_g = torch.autograd.grad(loss_g, g0 if graph else g, retain_graph=True)
        of_d = torch.autograd.grad(loss_d, d0 if graph else d)
        return [*of_g, *of_d]

    def run() -> list[Tensor]:
        """What autograd gives, flat: of every task, or its sum."""
        each = (torch.cat([p.detach().flatten() for p in task(t)]) for t in range(case.tasks))
        return list(each) if which == "adapt" else [sum(each) / case.tasks]  # type: ignore[list-item]

    return Step(run, lambda each: torch.stack(each) if which == "adapt" else each[0])
