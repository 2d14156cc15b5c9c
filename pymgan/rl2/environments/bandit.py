"""Bernoulli bandits: the smallest problem in which to learn is to explore (Duan et al. 2016, section 3.1)."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces

from ...meta.base import whole
from .known import Array, KnownProblems

__all__ = ["BernoulliBandits"]

GRID = ((np.arange(64) + 0.5) / 64).astype(np.float32)
"""Chances at which a posterior density is kept: for thousands of pulls, whose posteriors are wider than the gaps."""


class BernoulliBandits(KnownProblems):
    """N bandits whose arms pay 1 with probabilities drawn uniformly from [0, 1], for each trial anew.

    An episode is a trial of `pulls` steps. There is nothing to observe but the reward: the observation is always 0.

    The reward "regret" is what a pull loses on average, given all that was paid before it: E[arm's chance - best chance | pulls
    before]. In the mean that is the regret of who knows the chances, which no policy can tell from it; but that one depends on
    chances of arms that were hardly pulled, and from the middle of a long trial its sum has many times the variance.

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
        if self.reward == "regret":
            self._density = np.full((*self.chances.shape, len(GRID)), 1 / len(GRID), np.float32)
            self._below = self._density.cumsum(-1) - self._density / 2

    def _observe(self) -> Array:
        return np.zeros(self.num_envs, np.int64)

    def _worth(self) -> Array:
        return self.chances

    def _regret(self, actions: Array) -> Array:
        mean = self._density[np.arange(self.num_envs), actions] @ GRID
        best = 1 - self._below.prod(1).mean(1)  # E[max] = 1 - integral of P(all arms' chances < x)
        regret: Array = best - mean
        return regret

    def _act(self, actions: Array) -> Array:
        pulled = np.arange(self.num_envs), actions
        won = self.np_random.random(self.num_envs) < self.chances[pulled]
        if self.reward == "regret":
            density = self._density[pulled] * np.where(won[:, None], GRID, 1 - GRID)
            density /= density.sum(1, keepdims=True)
            self._density[pulled] = density
            self._below[pulled] = density.cumsum(1) - density / 2
        return won.astype(np.float64)
