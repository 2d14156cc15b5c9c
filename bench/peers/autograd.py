"""Peer `autograd`: task by task, ``torch.autograd.grad(..., create_graph=True)``, no vmap.

This is what a training loop written by hand does, and what higher, learn2learn and TorchOpt do inside.
Parameters are lists, the modules are called through ``functional_call``. One graph a task serves both
cotangents (``retain_graph``).
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

from ..cases import Problem, Step

VERSIONS = ("torch",)


def variants(problem: Problem) -> dict[str, Callable[[], Step]]:
    return {"shared": lambda: _build(problem, shared=True), "apart": lambda: _build(problem, shared=False)}


def _build(problem: Problem, shared: bool) -> Step:
    case = problem.case
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

    def step() -> Tensor:
        total: Tensor | float = 0.0
        for t in range(case.tasks):
            g, d = g0, d0
            for k in range(case.inner_steps):
                loss_g, loss_d = losses(g, d, problem.real[t, k], problem.noise[t, k])
                step_g = torch.autograd.grad(loss_g, g, create_graph=True)
                step_d = torch.autograd.grad(loss_d, d, create_graph=True)
                g = [p - case.rate * s for p, s in zip(g, step_g, strict=True)]
                d = [p - case.rate * s for p, s in zip(d, step_d, strict=True)]
            loss_g, loss_d = losses(g, d, problem.query[t], problem.query_noise[t])
            of_g = torch.autograd.grad(loss_g, g0, retain_graph=True)
            of_d = torch.autograd.grad(loss_d, d0)
            total = total + torch.cat([p.flatten() for p in (*of_g, *of_d)])
        return torch.as_tensor(total) / case.tasks

    return step
