"""Peer `torchopt`: ``torchopt.MetaSGD`` for each player, task by task, as TorchOpt's MAML tutorial does.

Both losses are computed before either player's ``step``, so the play is simultaneous. Each task starts again from the
parameters saved with ``extract_state_dict``.
Settings tried, both run by the bench, which times the faster: by="reference" and by="copy" of that saved state.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
import torchopt
from torch import Tensor

from ..cases import Problem, Step

VERSIONS = ("torchopt", "torch")


def variants(problem: Problem) -> dict[str, Callable[[], Step]]:
    return {by: lambda by=by: _build(problem, by) for by in ("reference", "copy")}


def _build(problem: Problem, by: str) -> Step:
    case = problem.case
    generator, discriminator = copy.deepcopy(problem.generator), copy.deepcopy(problem.discriminator)
    optimizer_g = torchopt.MetaSGD(generator, lr=case.rate)
    optimizer_d = torchopt.MetaSGD(discriminator, lr=case.rate)
    g0, d0 = list(generator.parameters()), list(discriminator.parameters())
    parts = (generator, discriminator, optimizer_g, optimizer_d)
    start = [torchopt.extract_state_dict(part, by=by) for part in parts]

    def losses(real: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        fake, true = discriminator(torch.cat([generator(z), real])).split([len(z), len(real)])
        return F.softplus(-fake).mean(), F.softplus(fake).mean() + F.softplus(-true).mean()

    def task(t: int) -> Tensor:
        for k in range(case.inner_steps):
            loss_g, loss_d = losses(problem.real[t, k], problem.noise[t, k])
            optimizer_g.step(loss_g)
            optimizer_d.step(loss_d)
        loss_g, loss_d = losses(problem.query[t], problem.query_noise[t])
        of_g = torch.autograd.grad(loss_g, g0, retain_graph=True)
        of_d = torch.autograd.grad(loss_d, d0)
        for part, state in zip(parts, start, strict=True):
            torchopt.recover_state_dict(part, state)
        return torch.cat([p.flatten() for p in (*of_g, *of_d)])

    return lambda: torch.stack([task(t) for t in range(case.tasks)]).mean(0)
