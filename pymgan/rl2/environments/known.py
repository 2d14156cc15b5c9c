"""Environments whose problems can be solved by who knows them, which tells how good every action is."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from ...meta.base import whole

__all__ = ["REWARDS", "Array", "KnownProblems"]

Array = np.ndarray[Any, np.dtype[Any]]
REWARDS = ("paid", "regret")


class KnownProblems(VectorEnv[Array, Array, Array]):
    """N problems, drawn for each trial anew; all trials are equally long, and so are their episodes.

    With the reward "regret" an action's reward is its value less that of the best action, Q*(s, a) - V*(s), for one who knows
    the problem. The expected return of a trial is then that of what is paid less V* at its start (the terms V* - Q* telescope),
    which no action changes: the same policies are good, and what is learned from is not noisy. What was paid is in
    infos["seen_reward"], float [N], and infos["known"], float32 [N, actions], says how much more than the mean action each is
    worth next. It is for training; what a policy is worth, "paid" says.

    Every step says in infos["trial_over"], bool [N], whether the trial ended too.

    Args:
        num_envs: N.
        observations: space of one problem's.
        actions: how many there are.
        episode_steps, episodes: of a trial.
        reward: "paid" or "regret".

    Attributes:
        trial_steps: steps of a trial.
        known: numbers in a row of infos["known"].
    """

    metadata: ClassVar[dict[str, Any]] = {"autoreset_mode": AutoresetMode.SAME_STEP}  # type: ignore[misc]

    def __init__(
        self,
        num_envs: int,
        observations: spaces.Space[Any],
        actions: int,
        *,
        episode_steps: int,
        episodes: int,
        reward: str,
    ) -> None:
        whole("num_envs", num_envs, least=1)
        if reward not in REWARDS:
            raise ValueError(f"[rl2] expected reward {' or '.join(map(repr, REWARDS))}, got {reward!r}")
        self.num_envs, self.reward = num_envs, reward
        self.episode_steps, self.trial_steps = episode_steps, episode_steps * episodes
        self.known = actions if reward == "regret" else 0
        self.single_observation_space, self.single_action_space = observations, spaces.Discrete(actions)
        self.observation_space = batch_space(observations, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.time = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """New problems everywhere."""
        super().reset(seed=seed)
        self._new_trial()
        return self._observe(), self._told()

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """One action, int [N], in every problem."""
        if self.reward == "regret":
            rewards = -self._regret(actions)
            infos = {"seen_reward": self._act(actions)}
        else:
            rewards, infos = self._act(actions), {}
        self.time += 1
        ended, over = self.time % self.episode_steps == 0, self.time == self.trial_steps
        if over:
            self._new_trial()
        elif ended:
            self._begin()
        everywhere = np.ones(self.num_envs, bool)
        infos |= {"trial_over": everywhere & over, **self._told()}
        return self._observe(), rewards, everywhere & ended, ~everywhere, infos

    def _new_trial(self) -> None:
        self.time = 0
        self._draw()
        self._begin()

    def _told(self) -> dict[str, Any]:
        if self.reward == "paid":
            return {}
        worth = self._worth()
        return {"known": (worth - worth.mean(1, keepdims=True)).astype(np.float32)}

    def _draw(self) -> None:
        """New problems."""
        raise NotImplementedError

    def _begin(self) -> None:
        """A new episode."""

    def _observe(self) -> Array:
        """What there is to see before an action."""
        raise NotImplementedError

    def _worth(self) -> Array:
        """Q* of every action now, [N, actions], but for what is the same for all actions of a problem."""
        raise NotImplementedError

    def _regret(self, actions: Array) -> Array:
        """What the actions, int [N], lose against the best ones, float [N]."""
        worth = self._worth()
        regret: Array = worth.max(1) - worth[np.arange(self.num_envs), actions]
        return regret

    def _act(self, actions: Array) -> Array:
        """Do what the actions, int [N], do; what they were paid, float [N]."""
        raise NotImplementedError
