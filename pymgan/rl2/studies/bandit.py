"""RL² on Bernoulli bandits, where the best possible return is known."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from ...metrics import summarise
from ..baselines import bandits
from ..environments import BernoulliBandits
from ..learn import Learner, Update
from ..policy import Policy
from ..ppo import PPO
from ..rollout import play

__all__ = ["study", "table"]

STEPS = 51_200  # pulls in a rollout, of as many trials as they make
UPDATES = None  # see `study`
SHORT, LONGER, SHARE = 10, 3, 0.1  # see `train`
LEARNING = PPO(epochs=4, minibatches=16, trace=0.4, value_trace=1.0, value_clip=None, entropy=0.1)
TEST_SEED, TUNE_SEED = 1_000_001, 1_000_003  # no trial of training begins with either


def train(
    arms: int,
    pulls: int,
    *,
    updates: int,
    hidden: int = 64,
    seed: int = 0,
    callback: Callable[[Update], None] | None = None,
) -> Policy:
    """A policy that has learned from regrets (`KnownProblems`).

    Long trials come after shorter ones, of 10, 30, 90, ... pulls, with a tenth of the updates each: to remember which arm paid is
    learned where little else is to be told apart, and to explore for a long time by who remembers.
    """
    envs = [
        BernoulliBandits(max(256, STEPS // length), arms=arms, pulls=length, reward="regret")
        for length in (*_shorter(pulls), pulls)
    ]
    learner = Learner(envs[0], LEARNING, updates=updates, hidden=hidden, critic=hidden, seed=seed)
    for number, env in enumerate(envs[1:], 1):
        learner.run(callback, until=round(number * SHARE * updates))
        learner.enter(env)
    return learner.run(callback)


def _shorter(pulls: int) -> list[int]:
    """Lengths of the trials that are learned before."""
    lengths: list[int] = []
    while 2 * SHORT * LONGER ** len(lengths) < pulls:
        lengths.append(SHORT * LONGER ** len(lengths))
    return lengths


def study(
    arms: int = 5,
    pulls: int = 10,
    *,
    problems: int = 20_000,
    updates: int | None = UPDATES,
    hidden: int = 64,
    seed: int = 0,
    callback: Callable[[Update], None] | None = None,
) -> dict[str, Any]:
    """Train from scratch, then play fresh problems greedily; the baselines play the same ones.

    By default there are 300 updates, 600 where shorter trials come first.

    Returns:
        Mean returns of a trial: return, optimum (None where it cannot be computed), gittins (near it; None for very long trials),
        thompson, ucb1 (with a prior start and the constant that loses least on other problems), ucb1_paper (constant sqrt 2, each
        arm once first), random. Mean regrets, which are less noisy (`BernoulliBandits`): regret, ucb1_regret, and less_than_ucb1,
        their difference. Beside them 95 % intervals, problems, train_s, and wall_s of everything.
    """
    started = time.perf_counter()
    if updates is None:
        updates = 600 if _shorter(pulls) else 300
    policy = train(arms, pulls, updates=updates, hidden=hidden, seed=seed, callback=callback)
    trained = time.perf_counter() - started
    test = bandits.Problems(problems, arms, pulls, TEST_SEED + seed)
    own = summarise(play(test.environment("paid"), policy, trials=problems, seed=test.seed))
    regret = -play(test.environment("regret"), policy, trials=problems, seed=test.seed)
    constant = bandits.tune_ucb(bandits.Problems(problems, arms, pulls, TUNE_SEED))
    ucb = bandits.ucb(test, constant=constant)
    less = summarise(torch.from_numpy(ucb.regret) - regret)
    rivals = {
        "gittins": bandits.gittins(test),
        "thompson": bandits.thompson(test),
        "ucb1": ucb,
        "ucb1_paper": bandits.ucb(test, constant=2**0.5, prior=False),
        "random": bandits.random_arms(test),
    }
    best = bandits.optimum(arms, pulls)
    return {
        "arms": arms,
        "pulls": pulls,
        "return": own["mean"],
        "return_ci95": own["ci95"],
        "optimum": best,
        "fraction": None if best is None else own["mean"] / best,
        **{name: None if played is None else played.paid.mean() for name, played in rivals.items()},
        "ucb1_constant": constant,
        "regret": float(regret.mean()),
        "ucb1_regret": ucb.regret.mean(),
        "less_than_ucb1": less["mean"],
        "less_than_ucb1_ci95": less["ci95"],
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
        "gittins": "Gittins index, finite horizon",
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
    less = f"{result['less_than_ucb1']:.3f} ± {result['less_than_ucb1_ci95']:.3f}"
    lines.append(
        f"RL² loses {result['regret']:.3f} against the best arm, UCB1 {result['ucb1_regret']:.3f}: {less} less"
    )
    return "\n".join(lines)
