"""Random tabular Markov decision processes (Duan et al. 2016, section 3.2)."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces

from ...meta.base import whole
from .known import Array, KnownProblems

__all__ = ["TabularMDPs", "plan"]


def plan(transitions: Array, means: Array, horizon: int) -> Array:
    """Backward induction: Q*, [N, horizon, S, A], what an action is worth if the best ones follow it.

    Args:
        transitions: [N, S, A, S]; means: [N, S, A], of the rewards.
    """
    count, states, actions = means.shape
    worth, value = np.empty((count, horizon, states, actions)), np.zeros((count, states))
    for step in reversed(range(horizon)):
        worth[:, step] = means + np.einsum("nsax,nx->nsa", transitions, value)
        value = worth[:, step].max(2)
    return worth


class TabularMDPs(KnownProblems):
    """N processes, drawn for each trial anew; a trial is several episodes in one process.

    Transitions are drawn from a flat Dirichlet distribution, mean rewards from a normal distribution with mean 1 and deviation
    1, as in Osband et al. 2013 (arXiv 1306.0940); what is paid is the mean plus a standard normal number. An episode begins in
    state 0.

    Args:
        num_envs: N.
        states, actions: of each process.
        horizon: steps of an episode.
        episodes: of a trial.
        reward: of `KnownProblems`.

    Attributes:
        transitions: [N, states, actions, states], of the present trials.
        means: [N, states, actions], the mean rewards.
    """

    def __init__(
        self,
        num_envs: int,
        *,
        states: int = 10,
        actions: int = 5,
        horizon: int = 10,
        episodes: int = 10,
        reward: str = "paid",
    ) -> None:
        counts = {"states": states, "actions": actions, "horizon": horizon, "episodes": episodes}
        for name, value in counts.items():
            whole(name, value, least=1)
        self.states, self.actions, self.horizon, self.episodes = states, actions, horizon, episodes
        super().__init__(
            num_envs,
            spaces.Discrete(states),
            actions,
            episode_steps=horizon,
            episodes=episodes,
            reward=reward,
        )

    def _draw(self) -> None:
        shape = (self.num_envs, self.states, self.actions)
        random = self.np_random
        self.transitions = random.standard_exponential((*shape, self.states))
        self.transitions /= self.transitions.sum(-1, keepdims=True)
        self._cumulative = self.transitions.cumsum(-1)
        self.means = 1 + random.standard_normal(shape)
        if self.reward == "regret":
            self._plan = plan(self.transitions, self.means, self.horizon)

    def _begin(self) -> None:
        self._state = np.zeros(self.num_envs, np.int64)

    def _observe(self) -> Array:
        return self._state.copy()

    def _worth(self) -> Array:
        worth: Array = self._plan[np.arange(self.num_envs), self.time % self.horizon, self._state]
        return worth

    def _act(self, actions: Array) -> Array:
        rows, before = np.arange(self.num_envs), self._state
        paid = self.means[rows, before, actions] + self.np_random.standard_normal(self.num_envs)
        reached = self._cumulative[rows, before, actions] < self.np_random.random((self.num_envs, 1))
        self._state = np.minimum(reached.sum(1), self.states - 1)  # a sum of 1 - 1e-16 must not lead outside
        return paid
