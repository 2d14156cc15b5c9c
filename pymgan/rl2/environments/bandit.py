"""Bernoulli bandits: the smallest problem in which to learn is to explore (Duan et al. 2016, section 3.1)."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

from ...meta.base import whole
from .known import Array, KnownProblems

__all__ = ["BernoulliBandits"]


class BernoulliBandits(KnownProblems):
    """N bandits whose arms pay 1 with probabilities drawn uniformly from [0, 1], for each trial anew.

    An episode is a trial of `pulls` steps. There is nothing to observe but the reward: the observation is always 0.

    Args:
        num_envs: N.
        arms: of each bandit.
        pulls: steps of a trial.
        reward: of `KnownProblems`.

    Attributes:
        chances: [N, arms], of the present trials.
    """

    def __init__(self, num_envs: int, *, arms: int = 5, pulls: int = 10, reward: str = "paid") -> None:
        whole("arms", arms, least=1)
        whole("pulls", pulls, least=1)
        self.arms = arms
        super().__init__(
            num_envs, spaces.Discrete(1), spaces.Discrete(arms), trial_steps=pulls, reward=reward
        )

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """Pull one arm, int [N], of every bandit."""
        chance = self.chances[np.arange(self.num_envs), actions]
        paid = (self.np_random.random(self.num_envs) < chance).astype(np.float64)
        rewards, infos = self._told(paid, self.chances.max(1) - chance)
        self._pulled += 1
        ended = np.full(self.num_envs, self._pulled == self.trial_steps)
        if ended[0]:
            self._draw()
        return np.zeros(self.num_envs, np.int64), rewards, ended, np.zeros_like(ended), infos

    def _draw(self) -> Array:
        self._pulled = 0
        self.chances = self.np_random.random((self.num_envs, self.arms))
        return np.zeros(self.num_envs, np.int64)
