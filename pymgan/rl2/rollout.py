"""Playing a policy in a gymnasium vector environment, and what is kept of it for learning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from torch import Tensor

from .policy import Policy

__all__ = ["Player", "Rollout", "play"]


@dataclass(frozen=True)
class Rollout:
    """L steps of N environments.

    Attributes:
        inputs: [N, L, inputs], what the policy saw.
        hidden: [N, hidden], before the first step.
        starts: bool [N, L], steps before which a trial begins.
        actions: flat, [N, L, columns].
        log_prob: of the actions, [N, L].
        values: that the policy expected, [N, L].
        rewards: [N, L].
        ends: bool [N, L], steps that end a trial.
        after: [N, L], the value of what follows a step: of the next step, of the state in which a time limit cut a trial off, or
            0 after its end.
        known: [N, L, known], what is known in training alone before each action.
        task: int64 [N, L]; at one step, the same number means the same task from the same start.
        played: bool [N, L]; False where an environment was only reset.
        returns: of the trials that ended, [any number].
    """

    inputs: Tensor
    hidden: Tensor
    starts: Tensor
    actions: Tensor
    log_prob: Tensor
    values: Tensor
    rewards: Tensor
    ends: Tensor
    after: Tensor
    known: Tensor
    task: Tensor
    played: Tensor
    returns: Tensor


class Player:
    """A policy in an environment: keeps the hidden state over the episodes of a trial and drops it between trials.

    An environment whose trials have several episodes says in ``infos["trial_over"]``, bool [N], which trials this step ended;
    of any other, an episode is a trial. What the policy is shown as its last reward is infos["seen_reward"], [N], where the
    environment gives one, because the true reward will not be there when the policy is used. What is known in training alone
    is infos["known"], [N, known], of every reset and step. Where several play the same task from the same start, infos["task"],
    int [N], says which. All three ways in which gymnasium's vector environments reset themselves are understood.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any], policy: Policy, *, seed: int) -> None:
        self.env, self.policy = env, policy
        self.mode = env.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP)
        self.generator = torch.Generator().manual_seed(seed)
        self._seed, self._begun = seed, False

    def begin(self, seed: int | None = None) -> None:
        """Begin new trials in all environments."""
        observations, infos = self.env.reset(seed=seed)
        count = self.env.num_envs
        nothing = torch.zeros(count)
        self._no = torch.zeros(count, dtype=torch.bool)
        self._input = self.policy.see(observations, None, nothing, nothing)
        self._hidden = self.policy.start(count)
        self._starts, self._resetting, self._over = ~self._no, self._no, self._no
        self._totals = torch.zeros(count, dtype=torch.float64)
        self._known, self._task = self._known_of(infos), self._task_of(infos)
        self._begun = True

    @torch.no_grad()
    def play(self, steps: int, *, greedy: bool = False) -> Rollout:
        """Play L steps from where the last call stopped; the first from new trials."""
        if not self._begun:
            self.begin(self._seed)
        hidden, returns = self._hidden, []
        rows: list[tuple[Tensor, ...]] = []
        for _ in range(steps):
            seen, starts, resetting = self._input, self._starts, self._resetting
            known, task = self._known, self._task
            states, self._hidden = self.policy(seen[:, None], self._hidden, starts[:, None])
            outputs, value = self.policy.actor(states[:, 0]), self.policy.value(states[:, 0])
            action = self.policy.heads.sample(outputs, self.generator, greedy=greedy)
            reward, over, cut = self._step(action)
            played = ~resetting
            over = over & played
            self._totals += torch.where(played, reward, 0.0)
            returns.append(self._totals[over])
            self._totals = torch.where(over, 0.0, self._totals)
            log_prob = self.policy.heads.log_prob(outputs, action)
            rows.append((seen, starts, action, log_prob, value, reward, over, cut, known, task, played))
        names = (torch.stack(each, 1) for each in zip(*rows, strict=True))
        inputs, starts, actions, log_prob, values, rewards, ends, cut, known, task, played = names
        states, _ = self.policy(self._input[:, None], self._hidden, self._starts[:, None])
        following = self.policy.value(states)
        after = torch.where(ends, cut, torch.cat([values[:, 1:], following], 1))
        return Rollout(
            inputs,
            hidden,
            starts,
            actions,
            log_prob,
            values,
            rewards.float(),
            ends,
            after,
            known,
            task,
            played,
            torch.cat(returns),
        )

    def _step(self, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One step: rewards float64 [N], trials that it ended, and the values of those that a time limit cut off."""
        policy = self.policy
        observations, rewards, terminated, truncated, infos = self.env.step(
            policy.heads.to_environment(action)
        )
        reward = torch.as_tensor(np.asarray(rewards, np.float64))
        done = torch.as_tensor(np.asarray(terminated) | np.asarray(truncated))
        over = torch.as_tensor(np.asarray(infos["trial_over"])) if "trial_over" in infos else done
        limited = over & torch.as_tensor(np.asarray(truncated)) & ~torch.as_tensor(np.asarray(terminated))
        cut = torch.zeros(len(reward))
        final = observations
        told = infos
        if bool(done.any()) and self.mode == AutoresetMode.DISABLED:
            observations, told = self.env.reset(options={"reset_mask": done.numpy()})
        elif self.mode == AutoresetMode.SAME_STEP:
            final = infos.get("final_obs")
        self._known, self._task = self._known_of(told), self._task_of(told)
        if bool(limited.any()):
            cut[limited] = self._values_of(final, limited, action, reward)
        shown = done
        self._starts = over
        if (
            self.mode == AutoresetMode.NEXT_STEP
        ):  # the next step only resets; what is seen after it comes first
            shown = done | self._resetting
            self._starts, self._over, self._resetting = self._over, over, done
        self._input = policy.see(
            observations, action, torch.as_tensor(infos.get("seen_reward", reward)), shown
        )
        if bool(self._starts.any()):  # a trial knows nothing of the one before it
            self._input[self._starts, -policy.heads.encoded - 2 :] = 0.0
        return reward, over, cut

    def _known_of(self, infos: dict[str, Any]) -> Tensor:
        """What is known in training alone, [N, known]; NaN where the environment does not say it."""
        shape = (self.env.num_envs, self.policy.known)
        if not self.policy.known or "known" not in infos:  # who only plays need not know it
            return torch.full(shape, torch.nan)
        known = torch.as_tensor(np.asarray(infos["known"], np.float32))
        if known.shape != shape:
            raise ValueError(f"[rl2] expected infos['known'] of shape {shape}, got {tuple(known.shape)}")
        return known

    def _task_of(self, infos: dict[str, Any]) -> Tensor:
        """Which task each plays, int64 [N]; one of its own where the environment does not say it."""
        return torch.as_tensor(np.asarray(infos.get("task", np.arange(self.env.num_envs)), np.int64))

    def _values_of(self, final: Any, rows: Tensor, action: Tensor, reward: Tensor) -> Tensor:
        """The values, [rows], of the last observations of trials that were cut off.

        Raises:
            ValueError: the environment resets itself and does not say what it saw last.
        """
        if final is None:
            raise ValueError(
                "[rl2] expected infos['final_obs'] of an environment that truncates and resets itself in the same step"
            )
        index = rows.nonzero().flatten().numpy()
        if isinstance(final, np.ndarray) and final.dtype == object:  # gymnasium: one entry an environment
            chosen: Any = np.stack([final[i] for i in index])
        elif isinstance(final, dict):
            chosen = {name: np.asarray(value)[index] for name, value in final.items()}
        else:
            chosen = np.asarray(final)[index]
        seen = self.policy.see(chosen, action[rows], reward[rows], torch.ones(len(index), dtype=torch.bool))
        states, _ = self.policy(seen[:, None], self._hidden[rows])
        return self.policy.value(states[:, 0])


def play(
    env: VectorEnv[Any, Any, Any], policy: Policy, *, trials: int, greedy: bool = True, seed: int = 0
) -> Tensor:
    """The returns of whole trials, float64 [trials], played with the policy as it is.

    Args:
        env: a gymnasium vector environment. Its first trials count in the order in which they end, so unless all trials are
            equally long, ask for many more than there are environments.
        policy: of the same spaces.
        trials: at least 1.
        greedy: take the most probable action instead of a draw.
        seed: of the environment and of the draws.
    """
    if trials < 1:
        raise ValueError(f"[rl2] expected trials >= 1, got {trials}")
    player = Player(env, policy, seed=seed)
    returns: list[Tensor] = []
    while sum(map(len, returns)) < trials:
        returns.append(player.play(getattr(env, "trial_steps", 32), greedy=greedy).returns)
    return torch.cat(returns)[:trials]
