"""RL² on random tabular MDPs."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ...metrics import summarise
from ..baselines import mdps
from ..environments import TabularMDPs
from ..learn import Update, learn
from ..ppo import PPO
from ..rollout import play

__all__ = ["study", "table"]

STEPS = 51_200  # in a rollout
UPDATES = 300
TEST_SEED = 1_000_001


def study(
    states: int = 10,
    actions: int = 5,
    *,
    horizon: int = 10,
    episodes: int = 10,
    problems: int = 1_000,
    updates: int = UPDATES,
    hidden: int = 128,
    seed: int = 0,
    callback: Callable[[Update], None] | None = None,
) -> dict[str, Any]:
    """Train from scratch, then play fresh processes greedily; the baselines play processes of the same distribution.

    Returns:
        Mean returns of a trial: return, informed (who knows the process), psrl, random; problems, wall_s, train_s.
    """
    started = time.perf_counter()
    shape: dict[str, Any] = {"states": states, "actions": actions, "horizon": horizon, "episodes": episodes}
    trials = max(64, STEPS // (horizon * episodes))
    policy = learn(
        TabularMDPs(trials, **shape, reward="regret"),
        PPO(epochs=4, minibatches=16, trace=0.4, value_trace=1.0, entropy=0.05),
        updates=updates,
        hidden=hidden,
        seed=seed,
        callback=callback,
    )
    trained = time.perf_counter() - started
    env = TabularMDPs(min(problems, 1000), **shape)
    own = summarise(play(env, policy, trials=problems, seed=TEST_SEED + seed))
    env.reset(seed=TEST_SEED + seed)
    time_span = {"horizon": horizon, "episodes": episodes}
    rivals = {
        "informed": mdps.optimal_returns(env.transitions, env.means, **time_span),
        "psrl": mdps.posterior_sampling(
            env.transitions, env.means, **time_span, random=np.random.default_rng(seed)
        ),
        "random": mdps.random_returns(env.transitions, env.means, **time_span),
    }
    return {
        **shape,
        "return": own["mean"],
        "return_ci95": own["ci95"],
        **{name: float(returns.mean()) for name, returns in rivals.items()},
        "problems": problems,
        "seed": seed,
        "updates": updates,
        "train_s": round(trained, 1),
        "wall_s": round(time.perf_counter() - started, 1),
    }


def table(result: dict[str, Any]) -> str:
    """One line a strategy."""
    names = {
        "informed": "knows the process",
        "return": "RL²",
        "psrl": "posterior sampling (PSRL)",
        "random": "random actions",
    }
    head = (
        "{states} states, {actions} actions, {episodes} episodes of {horizon} steps, {problems:,} processes"
    )
    lines = [head.format(**result)]
    for key, name in names.items():
        interval = f" ± {result['return_ci95']:.1f}" if key == "return" else ""
        lines.append(f"{name:<34}{result[key]:.1f}{interval}")
    return "\n".join(lines)
