"""Training a policy on any gymnasium vector environment, so that it learns to learn there."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from gymnasium.vector import VectorEnv
from torch import Tensor

from ..meta.base import whole
from .policy import Policy
from .ppo import PPO
from .rollout import Player

__all__ = ["Learner", "Update", "learn"]


@dataclass(frozen=True)
class Update:
    """What one update of `learn` says.

    Attributes:
        number: from 0.
        updates: of the whole run.
        mean_return: of the trials that ended; NaN where none did.
        metrics: of `PPO.update`.
        playing, learning: seconds.
    """

    number: int
    updates: int
    mean_return: float
    metrics: dict[str, float] = field(default_factory=dict)
    playing: float = 0.0
    learning: float = 0.0


class Learner:
    """A policy, its optimiser and an environment; every `update` plays and learns once.

    Where the environment has an attribute `known`, that many numbers are known in training alone (`Player`), and the hidden state
    has to tell them unless `PPO.belief` is 0.

    Where it has an attribute `trial_steps`, an update plays whole trials, which begin anew with a seed of their own, so that the
    policy, the optimiser's state and the number of updates are all that a stopped run needs to go on.
    """

    def __init__(
        self,
        env: VectorEnv[Any, Any, Any],
        ppo: PPO,
        *,
        updates: int,
        hidden: int = 64,
        critic: int = 0,
        rollout: int | None = None,
        seed: int = 0,
    ) -> None:
        whole("updates", updates, least=1)
        self.ppo, self.updates, self.seed, self.done = ppo, updates, seed, 0
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)
            self.policy = Policy(
                env.single_observation_space,
                env.single_action_space,
                hidden=hidden,
                known=getattr(env, "known", 0) if ppo.belief > 0 else 0,
                critic=critic,
            )
        self.optimiser = torch.optim.Adam(self.policy.parameters(), lr=ppo.lr)
        self.enter(env, rollout=rollout)

    def enter(self, env: VectorEnv[Any, Any, Any], *, rollout: int | None = None) -> None:
        """Go on in another environment with the same spaces."""
        whole("rollout", getattr(env, "trial_steps", 32) if rollout is None else rollout, least=1)
        self._whole = rollout is None and hasattr(env, "trial_steps")
        self._steps = getattr(env, "trial_steps", 32) if rollout is None else rollout
        self._player = Player(env, self.policy, seed=self.seed)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All that the next update depends on, where an update plays whole trials: tensors, and numbers."""
        tensors = {f"policy.{name}": value for name, value in self.policy.state_dict().items()}
        for index, moments in self.optimiser.state_dict()["state"].items():
            tensors |= {f"adam.{index}.{name}": torch.as_tensor(value) for name, value in moments.items()}
        return tensors, {"done": self.done}

    def restore(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Go on where `state` was taken."""
        own = {name.removeprefix("policy."): v for name, v in tensors.items() if name.startswith("policy.")}
        self.policy.load_state_dict(own)
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("adam."):
                _, index, key = name.split(".")
                moments.setdefault(int(index), {})[key] = value
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": moments})
        self.done = int(state["done"])

    def run(self, callback: Callable[[Update], None] | None = None, *, until: int | None = None) -> Policy:
        """Update to the end of the run, or until so many updates are done, and call the callback after each."""
        while self.done < (self.updates if until is None else until):
            said = self.update()
            if callback is not None:
                callback(said)
        return self.policy

    def update(self) -> Update:
        """Play one rollout and learn from it."""
        started = time.perf_counter()
        own = (self.seed * 1_000_003 + self.done) % 2**31
        if self._whole:
            self._player.generator.manual_seed(own)
            self._player.begin(own)
        rollout = self._player.play(self._steps)
        played = time.perf_counter()
        metrics = self.ppo.update(
            self.policy,
            self.optimiser,
            rollout,
            done=self.done / self.updates,
            generator=torch.Generator().manual_seed(own),
        )
        self.done += 1
        mean = float(rollout.returns.mean()) if len(rollout.returns) else float("nan")
        return Update(
            self.done - 1, self.updates, mean, metrics, played - started, time.perf_counter() - played
        )


def learn(
    env: VectorEnv[Any, Any, Any],
    ppo: PPO | None = None,
    *,
    updates: int,
    hidden: int = 64,
    critic: int = 0,
    rollout: int | None = None,
    seed: int = 0,
    callback: Callable[[Update], None] | None = None,
) -> Policy:
    """Train a new policy.

    Args:
        env: a gymnasium vector environment; what a trial is there, `Player` says.
        ppo: how to learn from a rollout.
        updates: rollouts to play and learn from.
        hidden, critic: of the policy.
        rollout: steps of a rollout; by default a whole trial where the environment has an attribute `trial_steps`, else 32.
        seed: of weights, environment and draws.
        callback: called after every update.

    Returns:
        The policy after the last update.
    """
    learner = Learner(
        env, ppo or PPO(), updates=updates, hidden=hidden, critic=critic, rollout=rollout, seed=seed
    )
    return learner.run(callback)
