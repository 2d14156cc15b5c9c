"""Who may steer a controlled loop: a learned policy, a fixed schedule, or chance."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from .controlled import ControlledLoop
from .controls import Controls, Turn
from .policy import Policy

__all__ = ["SHAPES", "FixedSchedule", "PolicySteering", "RandomSteering", "Steering", "drive"]

SHAPES = ("constant", "cosine", "linear")
TINY = 1e-6  # of a rate: where a schedule says 0


class Steering(Protocol):
    """Says how the next steps of a loop go."""

    watches: bool
    """Whether it looks at what the loop has measured."""

    def begin(self, loop: ControlledLoop) -> None:
        """Get ready for new tasks."""

    def turn(self, loop: ControlledLoop) -> Turn:
        """The loop's next turn."""


def drive(loop: ControlledLoop, steering: Steering) -> Iterator[Turn]:
    """Steer a loop from its start to its end; each turn is yielded after its steps were taken."""
    steering.begin(loop)
    for _ in range(loop.steps // loop.controls.every):
        turn = steering.turn(loop)
        loop.run(turn)
        yield turn


@dataclass(frozen=True)
class FixedSchedule:
    """The same optimiser, ratio and curve of rates for every task.

    Attributes:
        kind, ratio: indices into the controls' optimisers and ratios.
        offset: of the rates of (G, D) at their highest, as in `Controls`.
        shape: "constant", "cosine" or "linear": both of the latter fall from there to 0.
        relative: the offsets are added to those with which each task begins, instead of taking their place.
    """

    kind: int
    ratio: int
    offset: tuple[float, float]
    shape: str = "constant"
    relative: bool = False
    watches = False

    def begin(self, loop: ControlledLoop) -> None:
        """Nothing to get ready."""

    def turn(self, loop: ControlledLoop) -> Turn:
        """The next m steps of the curve."""
        count, m = len(loop.ids), loop.controls.every
        step = loop.done[:, None] + torch.arange(m)
        factor = _curve(self.shape, step.double() / loop.steps).clamp_min(TINY)
        offset = torch.tensor(self.offset, dtype=torch.float64).expand(count, 2)
        if self.relative:
            offset = offset + loop.offset
        kind, ratio = torch.full((count,), self.kind), torch.full((count,), self.ratio)
        return loop.controls.turn(offset[:, None] + factor.log()[..., None], kind, ratio, loop.done)

    def describe(self, controls: Controls) -> str:
        """Such as "adam, G 0.003, D 0.0095, 1:1"."""
        word, unit = ("times ", 1.0) if self.relative else ("", controls.reference[self.kind])
        g, d = (unit * math.exp(each) for each in self.offset)
        pair = controls.ratios[self.ratio]
        return f"{controls.optimisers[self.kind]}, G {word}{g:.3g}, D {word}{d:.3g}, {pair[0]}:{pair[1]}"


class RandomSteering:
    """Changes, optimisers and ratios drawn uniformly, for every task and turn."""

    watches = False

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def begin(self, loop: ControlledLoop) -> None:
        """Draws begin anew."""
        self._generator = torch.Generator().manual_seed(self._seed)

    def turn(self, loop: ControlledLoop) -> Turn:
        """A random action."""
        count, controls, random = len(loop.ids), loop.controls, self._generator
        change = 2 * torch.rand((count, 2), generator=random, dtype=torch.float64) - 1
        loop.offset = controls.moved(loop.offset, change)
        kind = torch.randint(len(controls.optimisers), (count,), generator=random)
        ratio = torch.randint(len(controls.ratios), (count,), generator=random)
        return controls.turn(loop.offset, kind, ratio, loop.done)


class PolicySteering:
    """A policy of `environments.GANControl`, its most probable actions."""

    watches = True

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    def begin(self, loop: ControlledLoop) -> None:
        """A new trial: the hidden state is zero."""
        self._hidden = self._policy.start(len(loop.ids))
        self._action: Tensor | None = None

    @torch.no_grad()
    def turn(self, loop: ControlledLoop) -> Turn:
        """What the policy does next."""
        policy, count = self._policy, len(loop.ids)
        never = torch.zeros(count, dtype=torch.bool)
        reward = torch.zeros(count) if self._action is None else loop.shown_reward
        seen = policy.see(loop.observation().numpy(), self._action, reward, never)
        states, self._hidden = policy(seen[:, None], self._hidden)
        self._action = policy.heads.sample(policy.actor(states[:, 0]), torch.Generator(), greedy=True)
        action = policy.heads.to_environment(self._action)
        loop.offset = loop.controls.moved(loop.offset, torch.as_tensor(action["change"]))
        kind, ratio = torch.as_tensor(action["optimiser"]), torch.as_tensor(action["ratio"])
        return loop.controls.turn(loop.offset, kind, ratio, loop.done)


def _curve(shape: str, part: Tensor) -> Tensor:
    if shape == "constant":
        return torch.ones_like(part)
    return 0.5 + 0.5 * torch.cos(math.pi * part) if shape == "cosine" else 1 - part
