"""Peer `torch_func`: ``torch.func`` in eager mode, ``grad`` for a task's inner step, ``vmap`` over tasks.

Follows PyTorch's own guides ("Model ensembling", "Per-sample gradients" and its functorch MAML example):
parameters in a dict, ``functional_call``, ``grad`` for the inner step, ``vmap`` over the tasks' losses.

Settings tried, all of them run by the bench, which times the fastest. Of the pass `meta`:
    autograd-outside   vmap(losses of a task), then torch.autograd.grad of the means, as the MAML example does
    vjp-outside        the same, with torch.func.vjp outside of vmap
    vjp-inside         vmap(vjp of a task), then the mean over tasks
Of every pass, a player's gradient in the inner step (and at phi_K):
    (nothing)          grad of that player's loss, each with forward passes of its own
    shared-            one vjp of both losses, whose forward passes they share, pulled back once for each player
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call, grad, vjp, vmap

from ..cases import PASSES, Pass, Problem, Step

__all__ = ["PASSES", "VERSIONS", "over_tasks", "read", "variants"]

VERSIONS = ("torch",)
Parameters = dict[str, Tensor]
Players = tuple[Parameters, Parameters]


def variants(problem: Problem, which: Pass) -> dict[str, Callable[[], Step]]:
    if which == "meta":
        builders = {
            "autograd-outside": _autograd_outside,
            "vjp-outside": _vjp_outside,
            "vjp-inside": _inside,
        }
    else:
        builders = {"grad": _inside}
    return {
        prefix + name: functools.partial(build, problem, which, shared)
        for name, build in builders.items()
        for prefix, shared in (("", False), ("shared-", True))
    }


def _losses(problem: Problem) -> tuple[Callable[..., Tensor], Callable[..., Tensor], Callable[..., Any]]:
    """L_G (g, d, z), L_D (d, g, real, z), and both at once (g, d, real, z)."""
    generator, discriminator = problem.generator, problem.discriminator

    def loss_g(g: Parameters, d: Parameters, z: Tensor) -> Tensor:
        score = functional_call(discriminator, d, (functional_call(generator, g, (z,)),))
        return F.softplus(-score).mean()

    def loss_d(d: Parameters, g: Parameters, real: Tensor, z: Tensor) -> Tensor:
        # Not detached: the gradient below is taken of d alone, the meta-gradient needs d2 L_D / dG dD.
        fake = functional_call(discriminator, d, (functional_call(generator, g, (z,)),))
        return F.softplus(fake).mean() + F.softplus(-functional_call(discriminator, d, (real,))).mean()

    def both(g: Parameters, d: Parameters, real: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        x = functional_call(generator, g, (z,))
        fake, true = functional_call(discriminator, d, (torch.cat([x, real]),)).split([len(x), len(real)])
        return F.softplus(-fake).mean(), F.softplus(fake).mean() + F.softplus(-true).mean()

    return loss_g, loss_d, both


def _task(problem: Problem, shared: bool) -> tuple[Callable[..., Players], Callable[..., Players]]:
    """One task: gradients (g, d, real [B,*], z [B,Z]) of each player's own loss, and phi_K (g, d, real [K,B,*], noise)."""
    case = problem.case
    loss_g, loss_d, both = _losses(problem)

    def gradients(g: Parameters, d: Parameters, real: Tensor, z: Tensor) -> Players:
        if not shared:
            return grad(loss_g)(g, d, z), grad(loss_d)(d, g, real, z)
        losses, pull = vjp(lambda g, d: both(g, d, real, z), g, d)
        one, zero = torch.ones_like(losses[0]), torch.zeros_like(losses[0])
        return pull((one, zero))[0], pull((zero, one))[1]

    def adapted(g: Parameters, d: Parameters, real: Tensor, noise: Tensor) -> Players:
        for k in range(case.inner_steps):
            step_g, step_d = gradients(g, d, real[k], noise[k])
            g = {name: p - case.rate * step_g[name] for name, p in g.items()}
            d = {name: p - case.rate * step_d[name] for name, p in d.items()}
        return g, d

    return gradients, adapted


def parameters(problem: Problem) -> Players:
    """Copies of theta_G and theta_D, by name."""
    g = {name: p.detach().clone() for name, p in problem.generator.named_parameters()}
    d = {name: p.detach().clone() for name, p in problem.discriminator.named_parameters()}
    return g, d


def batches(problem: Problem) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return problem.real, problem.noise, problem.query, problem.query_noise


def over_tasks(problem: Problem, which: Pass, shared: bool) -> Callable[..., Players]:
    """(g, d, *batches) -> the pass's result, a mean over tasks or [T, ...] each; derivatives are taken inside of vmap."""
    gradients, adapted = _task(problem, shared)
    _, _, both = _losses(problem)

    def of_task(
        g: Parameters, d: Parameters, real: Tensor, noise: Tensor, query: Tensor, query_noise: Tensor
    ) -> Players:
        if which == "adapt":
            return adapted(g, d, real, noise)
        if which == "first":
            return gradients(*adapted(g, d, real, noise), query, query_noise)
        losses, pull = vjp(lambda g, d: both(*adapted(g, d, real, noise), query, query_noise), g, d)
        one, zero = torch.ones_like(losses[0]), torch.zeros_like(losses[0])
        return pull((one, zero))[0], pull((zero, one))[1]

    def all_tasks(g: Parameters, d: Parameters, *data: Tensor) -> Players:
        each: Players = vmap(of_task, in_dims=(None, None, 0, 0, 0, 0))(g, d, *data)
        if which == "adapt":
            return each
        of_g, of_d = ({name: p.mean(0) for name, p in player.items()} for player in each)
        return of_g, of_d

    return all_tasks


def read(result: Players) -> Tensor:
    """[P], or [T, P] of what has an axis of tasks (biases then have two)."""
    parts = [p for player in result for p in player.values()]
    start = 1 if any(name.endswith("bias") and p.ndim == 2 for name, p in result[0].items()) else 0
    return torch.cat([p.flatten(start) for p in parts], dim=-1).detach()


def _inside(problem: Problem, which: Pass, shared: bool) -> Step:
    (g, d), data, all_tasks = parameters(problem), batches(problem), over_tasks(problem, which, shared)
    return Step(run=lambda: all_tasks(g, d, *data), read=read)


def _vmapped_losses(problem: Problem, shared: bool) -> Callable[..., tuple[Tensor, Tensor]]:
    """(g, d) -> means over tasks of L_G and L_D at phi_K."""
    _, adapted = _task(problem, shared)
    _, _, both = _losses(problem)
    data = batches(problem)

    def of_task(
        g: Parameters, d: Parameters, real: Tensor, noise: Tensor, query: Tensor, query_noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        losses: tuple[Tensor, Tensor] = both(*adapted(g, d, real, noise), query, query_noise)
        return losses

    def losses(g: Parameters, d: Parameters) -> tuple[Tensor, Tensor]:
        loss_g, loss_d = vmap(of_task, in_dims=(None, None, 0, 0, 0, 0))(g, d, *data)
        return loss_g.mean(), loss_d.mean()

    return losses


def _autograd_outside(problem: Problem, which: Pass, shared: bool) -> Step:
    (g, d), losses = parameters(problem), _vmapped_losses(problem, shared)
    for p in (*g.values(), *d.values()):
        p.requires_grad_()

    def run() -> Players:
        loss_g, loss_d = losses(g, d)
        of_g = torch.autograd.grad(loss_g, list(g.values()), retain_graph=True)
        of_d = torch.autograd.grad(loss_d, list(d.values()))
        return dict(zip(g, of_g, strict=True)), dict(zip(d, of_d, strict=True))

    return Step(run, read)


def _vjp_outside(problem: Problem, which: Pass, shared: bool) -> Step:
    (g, d), losses = parameters(problem), _vmapped_losses(problem, shared)
    one, zero = problem.phi.new_ones(()), problem.phi.new_zeros(())

    def run() -> Players:
        _, pull = vjp(losses, g, d)
        return pull((one, zero))[0], pull((zero, one))[1]

    return Step(run, read)
