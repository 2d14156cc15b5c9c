"""How close a case comes to LeakyReLU's kink, where a derivative jumps and float32 results are right on either side.

A case of millions of pre-activations has some that rounding may carry over the kink; whoever it happens to is off by up to a
thousandth and not wrong. So the seeds in cases.py are those, of 0 to 255, whose closest pre-activation is furthest away:
``python -m bench.kinks`` looks for them (minutes).
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .cases import CASES, Problem

SEEDS = 256


def margin(problem: Problem) -> float:
    """The smallest magnitude of an input of a LeakyReLU, in float64, over all tasks, inner steps and the query batch."""
    case, closest = problem.case, float("inf")

    def see(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        nonlocal closest
        closest = min(closest, float(inputs[0].detach().abs().min()))

    for t in range(case.tasks):
        players = [copy.deepcopy(m).double() for m in (problem.generator, problem.discriminator)]
        for module in (m for player in players for m in player if isinstance(m, nn.LeakyReLU)):
            module.register_forward_pre_hook(see)
        generator, discriminator = players
        for k in range(case.inner_steps + 1):
            at_query = k == case.inner_steps
            real, z = (
                (problem.query[t], problem.query_noise[t])
                if at_query
                else (problem.real[t, k], problem.noise[t, k])
            )
            fake, true = discriminator(torch.cat([generator(z.double()), real.double()])).split(case.batch)
            if at_query:
                break
            losses = (F.softplus(-fake).mean(), F.softplus(fake).mean() + F.softplus(-true).mean())
            parameters = [list(player.parameters()) for player in players]
            steps = [
                torch.autograd.grad(loss, of, retain_graph=True)
                for loss, of in zip(losses, parameters, strict=True)
            ]
            with torch.no_grad():
                for p, step in zip([*parameters[0], *parameters[1]], [*steps[0], *steps[1]], strict=True):
                    p -= case.rate * step
    return closest


if __name__ == "__main__":
    for case in CASES.values():
        margins = {seed: margin(case.problem(seed)) for seed in range(SEEDS)}
        best = max(margins, key=lambda seed: margins[seed])
        print(
            f"{case.name}: seed {best}, margin {margins[best]:.2e}; of seed 0: {margins[0]:.2e}",
            flush=True,
        )
