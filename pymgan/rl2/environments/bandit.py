"""Bernoulli bandits: the smallest problem in which to learn is to explore (Duan et al. 2016, section 3.1)."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from ...meta.base import whole

__all__ = ["BernoulliBandits"]

Array = np.ndarray[Any, np.dtype[Any]]


class BernoulliBandits(VectorEnv[Array, Array, Array]):
    """N bandits whose arms pay 1 with probabilities drawn uniformly from [0, 1], for each trial anew.

    An episode is a trial of `pulls` steps. There is nothing to observe but the reward: the observation is always 0.

    Args:
        num_envs: N.
        arms: of each bandit.
        pulls: steps of a trial.
    """

    metadata: ClassVar[dict[str, Any]] = {"autoreset_mode": AutoresetMode.SAME_STEP}  # type: ignore[misc]

    def __init__(self, num_envs: int, *, arms: int = 5, pulls: int = 10) -> None:
        whole("num_envs", num_envs, least=1)
        whole("arms", arms, least=1)
        whole("pulls", pulls, least=1)
        self.num_envs, self.arms, self.trial_steps = num_envs, arms, pulls
        self.single_observation_space = spaces.Discrete(1)
        self.single_action_space = spaces.Discrete(arms)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """New bandits everywhere."""
        super().reset(seed=seed)
        self._draw()
        return np.zeros(self.num_envs, np.int64), {}

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """Pull one arm, int [N], of every bandit."""
        chance = self._chances[np.arange(self.num_envs), actions]
        rewards = (self.np_random.random(self.num_envs) < chance).astype(np.float64)
        self._pulled += 1
        ended = np.full(self.num_envs, self._pulled == self.trial_steps)
        if self._pulled == self.trial_steps:
            self._draw()
        return np.zeros(self.num_envs, np.int64), rewards, ended, np.zeros_like(ended), {}

    def _draw(self) -> None:
        self._pulled = 0
        self._chances = self.np_random.random((self.num_envs, self.arms))
