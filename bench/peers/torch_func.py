"""Peer `torch_func`: ``torch.func`` in eager mode, ``grad`` for a task's inner step, ``vmap`` over tasks.

Follows PyTorch's own guides ("Model ensembling", "Per-sample gradients" and its functorch MAML example):
parameters in a dict, ``functional_call``, ``grad`` for the inner step, ``vmap`` over the tasks' losses.

Settings tried, all of them run by the bench, which times the fastest:
    autograd-outside   vmap(losses of a task), then torch.autograd.grad of the means, as the MAML example does
    vjp-outside        the same, with torch.func.vjp outside of vmap
    vjp-inside         vmap(vjp of a task), then the mean over tasks
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call, grad, vjp, vmap

from ..cases import Problem, Step

VERSIONS = ("torch",)
Parameters = dict[str, Tensor]


def variants(problem: Problem) -> dict[str, Callable[[], Step]]:
    return {
        "autograd-outside": lambda: _autograd_outside(problem),
        "vjp-outside": lambda: _vjp_outside(problem),
        "vjp-inside": lambda: _vjp_inside(problem),
    }


def _task(problem: Problem) -> Callable[..., tuple[Tensor, Tensor]]:
    """One task: (theta_G, theta_D, real [K,B,*], noise [K,B,Z], query, query_noise) -> L_G, L_D at phi_K."""
    case, generator, discriminator = problem.case, problem.generator, problem.discriminator

    def loss_g(g: Parameters, d: Parameters, z: Tensor) -> Tensor:
        score = functional_call(discriminator, d, (functional_call(generator, g, (z,)),))
        return F.softplus(-score).mean()

    def loss_d(d: Parameters, g: Parameters, real: Tensor, z: Tensor) -> Tensor:
        # Not detached: the gradient below is taken of d alone, the meta-gradient needs d2 L_D / dG dD.
        fake = functional_call(discriminator, d, (functional_call(generator, g, (z,)),))
        return F.softplus(fake).mean() + F.softplus(-functional_call(discriminator, d, (real,))).mean()

    def losses(
        g: Parameters, d: Parameters, real: Tensor, noise: Tensor, query: Tensor, query_noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        for k in range(case.inner_steps):
            step_g = grad(loss_g)(g, d, noise[k])
            step_d = grad(loss_d)(d, g, real[k], noise[k])
            g = {name: p - case.rate * step_g[name] for name, p in g.items()}
            d = {name: p - case.rate * step_d[name] for name, p in d.items()}
        return loss_g(g, d, query_noise), loss_d(d, g, query, query_noise)

    return losses


def _parameters(problem: Problem) -> tuple[Parameters, Parameters]:
    g = {name: p.detach().clone() for name, p in problem.generator.named_parameters()}
    d = {name: p.detach().clone() for name, p in problem.discriminator.named_parameters()}
    return g, d


def _batches(problem: Problem) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return problem.real, problem.noise, problem.query, problem.query_noise


def _join(g: Parameters, d: Parameters) -> Tensor:
    return torch.cat([p.flatten() for p in (*g.values(), *d.values())])


def _autograd_outside(problem: Problem) -> Step:
    (g, d), batches, task = _parameters(problem), _batches(problem), _task(problem)
    for p in (*g.values(), *d.values()):
        p.requires_grad_()

    def step() -> Tensor:
        loss_g, loss_d = vmap(task, in_dims=(None, None, 0, 0, 0, 0))(g, d, *batches)
        of_g = torch.autograd.grad(loss_g.mean(), list(g.values()), retain_graph=True)
        of_d = torch.autograd.grad(loss_d.mean(), list(d.values()))
        return torch.cat([p.flatten() for p in (*of_g, *of_d)])

    return step


def _vjp_outside(problem: Problem) -> Step:
    (g, d), batches, task = _parameters(problem), _batches(problem), _task(problem)
    one, zero = torch.ones(()), torch.zeros(())

    def losses(g: Parameters, d: Parameters) -> tuple[Tensor, Tensor]:
        loss_g, loss_d = vmap(task, in_dims=(None, None, 0, 0, 0, 0))(g, d, *batches)
        return loss_g.mean(), loss_d.mean()

    def step() -> Tensor:
        _, pull = vjp(losses, g, d)
        return _join(pull((one, zero))[0], pull((zero, one))[1]).detach()

    return step


def _vjp_inside(problem: Problem) -> Step:
    (g, d), batches, task = _parameters(problem), _batches(problem), _task(problem)
    one, zero = torch.ones(()), torch.zeros(())

    def meta_gradient(*batch: Tensor) -> Tensor:
        _, pull = vjp(lambda g, d: task(g, d, *batch), g, d)
        return _join(pull((one, zero))[0], pull((zero, one))[1])

    return lambda: vmap(meta_gradient)(*batches).mean(0).detach()
