"""What a policy says about its next action: a distribution over any mixture of discrete and continuous parts.

An action is a row of numbers, *flat*: the index of each discrete part, the coordinates of each continuous one. Continuous
coordinates are Gaussian around the network's output; where the space has bounds, [-1, 1] stands for them and what lies outside is
clipped when it is handed to the environment, not before, so that its probability is exact.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from .spaces import Leaf, leaves, symlog

__all__ = ["Heads"]

LOG_STD = math.log(0.5)  # of continuous coordinates, before training


class Heads(nn.Module):
    """The distribution over a gymnasium action space.

    Attributes:
        outputs: numbers that it asks of the network.
        columns: of a flat action.
        encoded: columns of `encode`.
    """

    def __init__(self, space: spaces.Space[Any]) -> None:
        super().__init__()
        self.space = space
        self._sizes: list[int] = []  # of each discrete choice
        self._continuous = 0
        for leaf in leaves(space):
            if isinstance(leaf, spaces.Box):
                self._continuous += int(np.prod(leaf.shape))
            else:
                self._sizes += _choices(leaf)
        self.outputs = sum(self._sizes) + self._continuous
        self.columns = len(self._sizes) + self._continuous
        self.encoded = self.outputs
        self.log_std = nn.Parameter(torch.full((self._continuous,), LOG_STD))

    def sample(self, outputs: Tensor, generator: torch.Generator, *, greedy: bool = False) -> Tensor:
        """Flat actions [N, columns] for the network's outputs [N, outputs]; `greedy` takes the most probable."""
        logits, mean = self._split(outputs)
        parts = []
        for part in logits:  # Gumbel's trick: the largest of logits plus Gumbel noise is a draw
            if not greedy:
                part = part - torch.rand(part.shape, generator=generator).log().neg().log()
            parts.append(part.argmax(-1, keepdim=True).float())
        noise = 0.0 if greedy else torch.randn(mean.shape, generator=generator) * self.log_std.exp()
        return torch.cat([*parts, mean + noise], -1)

    def log_prob(self, outputs: Tensor, actions: Tensor) -> Tensor:
        """log p(action), [...], of outputs [..., outputs] and flat actions [..., columns]."""
        logits, mean = self._split(outputs)
        total = torch.zeros(outputs.shape[:-1])
        for i, part in enumerate(logits):
            chosen = actions[..., i : i + 1].long()
            total = total + part.log_softmax(-1).gather(-1, chosen).squeeze(-1)
        distance = (actions[..., len(logits) :] - mean) * (-self.log_std).exp()
        return total - (0.5 * distance.square() + self.log_std + 0.5 * math.log(2 * math.pi)).sum(-1)

    def entropy(self, outputs: Tensor) -> Tensor:
        """Of the distribution, [...], in nats."""
        logits, _ = self._split(outputs)
        total = torch.zeros(outputs.shape[:-1]) + (self.log_std + 0.5 * math.log(2 * math.pi * math.e)).sum()
        for part in logits:
            log = part.log_softmax(-1)
            total = total - (log.exp() * log).sum(-1)
        return total

    def encode(self, actions: Tensor) -> Tensor:
        """Flat actions [N, columns] as the policy is shown its last one, [N, encoded]."""
        parts = [
            nn.functional.one_hot(actions[:, i].long(), size).float() for i, size in enumerate(self._sizes)
        ]
        return torch.cat([*parts, symlog(actions[:, len(self._sizes) :])], 1)

    def to_environment(self, actions: Tensor) -> Any:
        """Flat actions [N, columns] as a batch of the environment's action space, in numpy."""
        rows = actions.detach().numpy()
        choices = iter(rows[:, : len(self._sizes)].T.astype(np.int64))
        numbers = iter(rows[:, len(self._sizes) :].T)
        return _build(self.space, len(rows), choices, numbers)

    def _split(self, outputs: Tensor) -> tuple[list[Tensor], Tensor]:
        *logits, mean = torch.split(outputs, [*self._sizes, self._continuous], -1)
        return logits, mean


def _choices(leaf: Leaf) -> list[int]:
    if isinstance(leaf, spaces.Discrete):
        return [int(leaf.n)]
    if isinstance(leaf, spaces.MultiDiscrete):
        return [int(size) for size in leaf.nvec.reshape(-1)]
    return [2] * int(np.prod(leaf.shape))


def _build(space: spaces.Space[Any], count: int, choices: Any, numbers: Any) -> Any:
    """The batch that the next columns of choices and numbers stand for; the order is that of `leaves`."""
    if isinstance(space, spaces.Dict):
        return {name: _build(part, count, choices, numbers) for name, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_build(part, count, choices, numbers) for part in space.spaces)
    if isinstance(space, spaces.Discrete):
        return next(choices) + int(space.start)
    size = int(np.prod(space.shape or ()))
    shape = (count, *(space.shape or ()))
    if isinstance(space, spaces.Box):
        unit = np.stack([next(numbers) for _ in range(size)], 1).reshape(shape)
        bounded = space.bounded_below & space.bounded_above
        with np.errstate(invalid="ignore"):  # an infinite bound's place is not used
            scaled = space.low + (unit + 1) / 2 * (space.high - space.low)
        return np.clip(np.where(bounded, scaled, unit), space.low, space.high).astype(space.dtype)
    chosen = np.stack([next(choices) for _ in range(size)], 1).reshape(shape)
    if isinstance(space, spaces.MultiDiscrete):
        chosen = chosen + space.start
    return chosen.astype(space.dtype)
