"""Peer `torchopt`: ``torchopt.MetaSGD`` for each player, task by task, as TorchOpt's MAML tutorial does.

Both losses are computed before either player's ``step``, so the play is simultaneous. Each task starts again from the
parameters saved with ``extract_state_dict``.
Settings tried, both run by the bench, which times the faster: by="reference" and by="copy" of that saved state.

Where nothing is differentiated through the steps (passes `first` and `adapt`), TorchOpt's documentation has ``torchopt.sgd``, the
functional optimiser, whose updates are applied in place (setting "functional").
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
import torchopt
from torch import Tensor

from ..cases import PASSES, Pass, Problem, Step

__all__ = ["PASSES", "VERSIONS", "variants"]

VERSIONS = ("torchopt", "torch")


def variants(problem: Problem, which: Pass) -> dict[str, Callable[[], Step]]:
    if which == "meta":
        return {by: lambda by=by: _differentiable(problem, by) for by in ("reference", "copy")}
    return {"functional": lambda: _functional(problem, which)}


def _differentiable(problem: Problem, by: str) -> Step:
    case = problem.case
    generator, discriminator = copy.deepcopy(problem.generator), copy.deepcopy(problem.discriminator)
    optimizer_g = torchopt.MetaSGD(generator, lr=case.rate)
    optimizer_d = torchopt.MetaSGD(discriminator, lr=case.rate)
    g0, d0 = list(generator.parameters()), list(discriminator.parameters())
    parts = (generator, discriminator, optimizer_g, optimizer_d)
    start = [torchopt.extract_state_dict(part, by=by) for part in parts]

    def task(t: int) -> list[Tensor]:
        for k in range(case.inner_steps):
            loss_g, loss_d = _losses(generator, discriminator, problem.real[t, k], problem.noise[t, k])
            optimizer_g.step(loss_g)
            optimizer_d.step(loss_d)
        loss_g, loss_d = _losses(generator, discriminator, problem.query[t], problem.query_noise[t])
        of_g = torch.autograd.grad(loss_g, g0, retain_graph=True)
        of_d = torch.autograd.grad(loss_d, d0)
        for part, state in zip(parts, start, strict=True):
            torchopt.recover_state_dict(part, state)
        return [*of_g, *of_d]

    return Step(lambda: _each(problem, task).mean(0), lambda result: result)


def _functional(problem: Problem, which: Pass) -> Step:
    case = problem.case
    generator, discriminator = copy.deepcopy(problem.generator), copy.deepcopy(problem.discriminator)
    g, d = tuple(generator.parameters()), tuple(discriminator.parameters())
    start = [p.detach().clone() for p in (*g, *d)]
    optimizer = torchopt.sgd(lr=case.rate)

    def gradients(real: Tensor, z: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        loss_g, loss_d = _losses(generator, discriminator, real, z)
        return torch.autograd.grad(loss_g, g, retain_graph=True), torch.autograd.grad(loss_d, d)

    def task(t: int) -> list[Tensor]:
        with torch.no_grad():
            for p, value in zip((*g, *d), start, strict=True):
                p.copy_(value)
        states = [optimizer.init(g), optimizer.init(d)]
        for k in range(case.inner_steps):
            both = gradients(problem.real[t, k], problem.noise[t, k])
            for i, (player, gradient) in enumerate(zip((g, d), both, strict=True)):
                updates, states[i] = optimizer.update(gradient, states[i], params=player, inplace=True)
                torchopt.apply_updates(player, updates, inplace=True)
        if which == "adapt":
            return [*g, *d]
        of_g, of_d = gradients(problem.query[t], problem.query_noise[t])
        return [*of_g, *of_d]

    def run() -> Tensor:
        each = _each(problem, task)
        return each if which == "adapt" else each.mean(0)

    return Step(run, lambda result: result)


def _losses(
    generator: torch.nn.Module, discriminator: torch.nn.Module, real: Tensor, z: Tensor
) -> tuple[Tensor, Tensor]:
    fake, true = discriminator(torch.cat([generator(z), real])).split([len(z), len(real)])
    return F.softplus(-fake).mean(), F.softplus(fake).mean() + F.softplus(-true).mean()


def _each(problem: Problem, task: Callable[[int], list[Tensor]]) -> Tensor:
    """[T, P]."""
    flat = [torch.cat([p.detach().flatten() for p in task(t)]) for t in range(problem.case.tasks)]
    return torch.stack(flat)
