"""RL² on Bernoulli bandits, where the best possible return is known."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ...metrics import summarise
from ..baselines import bandits
from ..environments import BernoulliBandits
from ..learn import Update, learn
from ..ppo import PPO
from ..rollout import play

__all__ = ["study", "table"]

STEPS = 40_960  # pulls in a rollout, of as many trials as they make
UPDATES = 350
TEST_SEED, TUNE_SEED = 1_000_001, 1_000_003  # no trial of training begins with either


def study(
    arms: int = 5,
    pulls: int = 10,
    *,
    problems: int = 20_000,
    updates: int = UPDATES,
    hidden: int = 64,
    seed: int = 0,
    callback: Callable[[Update], None] | None = None,
) -> dict[str, Any]:
    """Train from scratch, then play fresh problems greedily, and so do the baselines.

    Returns:
        Mean returns of a trial: return, optimum (None where it cannot be computed), thompson, ucb1 (with a prior start and the
        constant that is best on other problems), ucb1_paper (constant sqrt 2, each arm once first), random. Beside them
        return_ci95, problems, train_s, and wall_s of everything.
    """
    started = time.perf_counter()
    trials = max(256, STEPS // pulls)
    policy = learn(
        BernoulliBandits(trials, arms=arms, pulls=pulls),
        PPO(minibatches=8),
        updates=updates,
        hidden=hidden,
        seed=seed,
        callback=callback,
    )
    trained = time.perf_counter() - started
    env = BernoulliBandits(min(problems, 2000), arms=arms, pulls=pulls)
    own = summarise(play(env, policy, trials=problems, seed=TEST_SEED + seed))
    random = np.random.default_rng(TEST_SEED + seed)
    chances = random.random((problems, arms))
    constant = bandits.tune_ucb(arms, pulls, problems=problems, seed=TUNE_SEED)
    rivals = {
        "thompson": bandits.thompson(chances, pulls, random),
        "ucb1": bandits.ucb(chances, pulls, random, constant=constant),
        "ucb1_paper": bandits.ucb(chances, pulls, random, constant=2**0.5, prior=False),
        "random": bandits.random_arms(chances, pulls, random),
    }
    scores = {name: summarise(torch.from_numpy(returns)) for name, returns in rivals.items()}
    best = bandits.optimum(arms, pulls)
    return {
        "arms": arms,
        "pulls": pulls,
        "return": own["mean"],
        "return_ci95": own["ci95"],
        "optimum": best,
        "fraction": None if best is None else own["mean"] / best,
        **{name: score["mean"] for name, score in scores.items()},
        "ucb1_constant": constant,
        "problems": problems,
        "seed": seed,
        "updates": updates,
        "train_s": round(trained, 1),
        "wall_s": round(time.perf_counter() - started, 1),
    }


def table(result: dict[str, Any]) -> str:
    """One line a strategy."""
    lines = [f"{result['arms']} arms, {result['pulls']} pulls, {result['problems']:,} problems"]
    names = {
        "optimum": "Bayes optimum",
        "return": "RL²",
        "ucb1": f"UCB1, prior start, c = {result['ucb1_constant']:g}",
        "thompson": "Thompson sampling",
        "ucb1_paper": "UCB1, c = sqrt 2",
        "random": "random arms",
    }
    for key, name in names.items():
        value = "not computed" if result[key] is None else f"{result[key]:.3f}"
        interval = f" ± {result['return_ci95']:.3f}" if key == "return" else ""
        lines.append(f"{name:<34}{value}{interval}")
    return "\n".join(lines)
