"""Bernoulli bandits: the smallest problem in which to learn is to explore (Duan et al. 2016, section 3.1)."""

from __future__ import annotations

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
        super().__init__(num_envs, spaces.Discrete(1), arms, episode_steps=pulls, episodes=1, reward=reward)

    def _draw(self) -> None:
        self.chances = self.np_random.random((self.num_envs, self.arms))

    def _observe(self) -> Array:
        return np.zeros(self.num_envs, np.int64)

    def _worth(self) -> Array:
        return self.chances

    def _act(self, actions: Array) -> Array:
        chance = self.chances[np.arange(self.num_envs), actions]
        return (self.np_random.random(self.num_envs) < chance).astype(np.float64)
