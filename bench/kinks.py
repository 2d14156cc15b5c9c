"""How close a case comes to LeakyReLU's kink, where a derivative jumps and float32 results are right on either side.

A case of millions of pre-activations has some that rounding may carry over the kink; whoever it happens to is off by up to a
thousandth and not wrong. So the seeds in cases.py are those, of 0 to 255, whose closest pre-activation is furthest away:
``python -m bench.kinks`` looks for them (minutes).

The MLPs with the tasks of a GPU have too many for any seed. Tasks do not see each other, so each is kept or left out by itself:
more are drawn, and ``python -m bench.kinks tasks`` writes into kinks.json those that `Case.left_out` then drops (minutes). The
images of a GPU are left as they are drawn: each of the first five tasks comes closer than 6e-8, so every float32 result crosses
kinks there, that of torch's own, which the bound is made of, too.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import sys
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .cases import CASES, KINKS, ON_CUDA, Case, Problem

SEEDS = 256
CLOSEST = {"ring-mlp": 1e-6, "glyph-mlp": 5e-7}  # of a task that is kept
DRAWN = {"ring-mlp": 1.4, "glyph-mlp": 2.6}  # times as many tasks as are kept, of which enough are


def margin(problem: Problem) -> float:
    """The smallest magnitude of an input of a LeakyReLU, in float64, over all tasks, inner steps and the query batch."""
    return min(margins(problem))


def margins(problem: Problem) -> Iterator[float]:
    """The same of each task by itself."""
    case, closest = problem.case, 0.0

    def see(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        nonlocal closest
        closest = min(closest, float(inputs[0].detach().abs().min()))

    for t in range(case.tasks):
        closest = float("inf")
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
        yield closest


def left_out(case: Case) -> list[int]:
    """Of more tasks than `case` has, those to drop so that its own are left and none of them is close to a kink.

    Raises:
        ValueError: too few would be left.
    """
    name = case.name.split()[0]
    more = dataclasses.replace(case, tasks=int(case.tasks * DRAWN[name]))
    close, kept = [], 0
    for t, closest in enumerate(margins(more.problem())):
        if kept < case.tasks and closest > CLOSEST[name]:
            kept += 1
        else:
            close.append(t)
    if kept < case.tasks:
        raise ValueError(f"{case.name}: expected {case.tasks} tasks of {more.tasks}, got {kept}")
    return close


def best_seeds() -> None:
    """Prints them."""
    for case in CASES.values():
        margins = {seed: margin(case.problem(seed)) for seed in range(SEEDS)}
        best = max(margins, key=lambda seed: margins[seed])
        print(
            f"{case.name}: seed {best}, margin {margins[best]:.2e}; of seed 0: {margins[0]:.2e}",
            flush=True,
        )


def renew_tasks() -> None:
    """Writes kinks.json."""
    cases = [case.altered(tasks=tasks) for case, tasks in ON_CUDA if case.name in CLOSEST]
    found = {case.name: left_out(case) for case in cases}
    KINKS.write_text(json.dumps(found) + "\n", encoding="utf-8")
    for name, tasks in found.items():
        print(f"{name}: {len(tasks)} left out", flush=True)


if __name__ == "__main__":
    renew_tasks() if sys.argv[1:] == ["tasks"] else best_seeds()
