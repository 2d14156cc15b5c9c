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
    """N problems, drawn for each trial anew, all trials equally long.

    With the reward "regret" an action's reward is its value less that of the best action, Q*(s, a) - V*(s), for one who knows
    the problem, and what was paid is in infos["seen_reward"], float [N]. The expected return of a trial is then that of what is
    paid less V* at its start (the terms V* - Q* telescope), which no action changes: the same policies are good, and what is
    learned from is not noisy. It is for training; what a policy is worth, "paid" says.

    Args:
        num_envs: N.
        observations, actions: spaces of one problem.
        trial_steps: steps of a trial.
        reward: "paid" or "regret".
    """

    metadata: ClassVar[dict[str, Any]] = {"autoreset_mode": AutoresetMode.SAME_STEP}  # type: ignore[misc]

    def __init__(
        self,
        num_envs: int,
        observations: spaces.Space[Any],
        actions: spaces.Space[Any],
        *,
        trial_steps: int,
        reward: str,
    ) -> None:
        whole("num_envs", num_envs, least=1)
        if reward not in REWARDS:
            raise ValueError(f"[rl2] expected reward {' or '.join(map(repr, REWARDS))}, got {reward!r}")
        self.num_envs, self.trial_steps, self.reward = num_envs, trial_steps, reward
        self.single_observation_space, self.single_action_space = observations, actions
        self.observation_space = batch_space(observations, num_envs)
        self.action_space = batch_space(actions, num_envs)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """New problems everywhere."""
        super().reset(seed=seed)
        return self._draw(), {}

    def _draw(self) -> Array:
        """New problems; the first observations."""
        raise NotImplementedError

    def _told(self, paid: Array, regret: Array) -> tuple[Array, dict[str, Any]]:
        """A step's rewards and infos, of what was paid and how much worse than the best the actions were, both [N]."""
        return (paid, {}) if self.reward == "paid" else (-regret, {"seen_reward": paid})
