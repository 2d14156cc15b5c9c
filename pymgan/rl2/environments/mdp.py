"""Random tabular Markov decision processes (Duan et al. 2016, section 3.2)."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from ...meta.base import whole

__all__ = ["TabularMDPs"]

Array = np.ndarray[Any, np.dtype[Any]]


class TabularMDPs(VectorEnv[Array, Array, Array]):
    """N processes, drawn for each trial anew; a trial is several episodes in one process.

    Transitions are drawn from a flat Dirichlet distribution, mean rewards from a normal distribution with mean 1 and deviation
    1, as in Osband et al. 2013 (arXiv 1306.0940); a reward is its mean plus a standard normal number. An episode begins in
    state 0.

    Args:
        num_envs: N.
        states, actions: of each process.
        horizon: steps of an episode.
        episodes: of a trial.

    Attributes:
        transitions: [N, states, actions, states], of the present trials.
        means: [N, states, actions], the mean rewards.
    """

    metadata: ClassVar[dict[str, Any]] = {"autoreset_mode": AutoresetMode.SAME_STEP}  # type: ignore[misc]

    def __init__(
        self, num_envs: int, *, states: int = 10, actions: int = 5, horizon: int = 10, episodes: int = 10
    ) -> None:
        counts = {
            "num_envs": num_envs,
            "states": states,
            "actions": actions,
            "horizon": horizon,
            "episodes": episodes,
        }
        for name, value in counts.items():
            whole(name, value, least=1)
        self.num_envs, self.states, self.actions = num_envs, states, actions
        self.horizon, self.episodes, self.trial_steps = horizon, episodes, horizon * episodes
        self.single_observation_space = spaces.Discrete(states)
        self.single_action_space = spaces.Discrete(actions)
        self._state, self._time = np.zeros(num_envs, np.int64), 0
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """New processes everywhere."""
        super().reset(seed=seed)
        self._draw()
        return self._state.copy(), {}

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """One transition in every process. infos["trial_over"], bool [N], says where the trial ended too."""
        rows = np.arange(self.num_envs)
        mean = self.means[rows, self._state, actions]
        rewards = mean + self.np_random.standard_normal(self.num_envs)
        reached = self._cumulative[rows, self._state, actions] < self.np_random.random((self.num_envs, 1))
        self._state = np.minimum(reached.sum(1), self.states - 1)  # a sum of 1 - 1e-16 must not lead outside
        self._time += 1
        ended = np.full(self.num_envs, self._time % self.horizon == 0)
        over = np.full(self.num_envs, self._time == self.trial_steps)
        if over[0]:
            self._draw()
        elif ended[0]:
            self._state = np.zeros(self.num_envs, np.int64)
        return self._state.copy(), rewards, ended, np.zeros_like(ended), {"trial_over": over}

    def _draw(self) -> None:
        shape = (self.num_envs, self.states, self.actions)
        random = self.np_random
        self.transitions = random.standard_exponential((*shape, self.states))
        self.transitions /= self.transitions.sum(-1, keepdims=True)
        self._cumulative = self.transitions.cumsum(-1)
        self.means = 1 + random.standard_normal(shape)
        self._state, self._time = np.zeros(self.num_envs, np.int64), 0
