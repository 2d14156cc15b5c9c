"""Bernoulli bandits with uniform priors: the exact optimum, and strategies that people use."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from ..environments import BernoulliBandits

__all__ = [
    "CONSTANTS",
    "Played",
    "Problems",
    "gittins",
    "optimum",
    "random_arms",
    "thompson",
    "tune_ucb",
    "ucb",
]

Array = np.ndarray[Any, np.dtype[Any]]
CONSTANTS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.7, 1.0, 1.4)
"""Exploration constants that `tune_ucb` tries."""
MOST = 500_000  # states to go through: half a minute
DEEPEST = 300  # pulls: the recursion is as deep
LONGEST_TABLE = 200  # pulls: five seconds, 270 MB while it is made


@dataclass(frozen=True)
class Problems:
    """The same bandits for whoever plays them, and the same luck.

    Attributes:
        count: N.
        arms, pulls: of each.
        seed: what `environment` has to be reset with.
    """

    count: int
    arms: int
    pulls: int
    seed: int

    def environment(self, reward: str) -> BernoulliBandits:
        """Where they are played, with a reward of `KnownProblems`."""
        return BernoulliBandits(self.count, arms=self.arms, pulls=self.pulls, reward=reward)


def optimum(arms: int, pulls: int) -> float | None:
    """The expected return of the best strategy there is, by dynamic programming over what may be known.

    With uniform priors, (successes, failures) of every arm say all; arms are alike, so their order does not count.

    Returns:
        None where there are too many states to go through (100 pulls of 5 arms).
    """
    if _states(arms, pulls) > MOST or pulls > DEEPEST:
        return None

    @cache
    def value(pulled: tuple[tuple[int, int], ...], left: int) -> float:
        if left == 0:
            return 0.0
        best = 0.0
        for arm in {*pulled, *([(0, 0)] if len(pulled) < arms else [])}:
            rest = list(pulled)
            if arm in rest:
                rest.remove(arm)
            wins, losses = arm
            chance = (wins + 1) / (wins + losses + 2)
            won = tuple(sorted([*rest, (wins + 1, losses)]))
            lost = tuple(sorted([*rest, (wins, losses + 1)]))
            best = max(best, chance * (1 + value(won, left - 1)) + (1 - chance) * value(lost, left - 1))
        return best

    return value((), pulls)


def _states(arms: int, pulls: int) -> float:
    """About how many there are: ways in which 2 x arms counts can have a sum of at most `pulls`, over the arms' orders."""
    return math.comb(pulls + 2 * arms, 2 * arms) / math.factorial(arms)


class Played(NamedTuple):
    """N trials: what was paid, and what was lost (`BernoulliBandits`, the reward "regret"), float64 [N] each."""

    paid: Array
    regret: Array


def random_arms(problems: Problems) -> Played:
    """Arms drawn uniformly."""
    return _play(problems, lambda wins, losses, time, random: random.random((problems.count, problems.arms)))


def thompson(problems: Problems) -> Played:
    """Thompson sampling (1933): an arm is drawn with the probability that it is the best one."""
    return _play(problems, lambda wins, losses, time, random: random.beta(wins + 1, losses + 1))


def ucb(problems: Problems, *, constant: float, prior: bool = True) -> Played:
    """UCB1 (Auer et al. 2002), the arm with the largest mean + c sqrt(ln t / n).

    Args:
        constant: c; that of the paper is sqrt(2).
        prior: start from the mean and count of one success and one failure, instead of pulling each arm once first; with few
            pulls that is stronger.
    """

    def index(wins: Array, losses: Array, time: int, _: np.random.Generator) -> Array:
        count = wins + losses
        if prior:
            bonus = np.sqrt(np.log(time + 1) / (count + 1))
            return np.asarray((wins + 1) / (count + 2) + constant * bonus)
        bonus = np.sqrt(np.log(max(time, 1)) / np.maximum(count, 1))
        return np.where(count == 0, np.inf, wins / np.maximum(count, 1) + constant * bonus)

    return _play(problems, index)


def tune_ucb(problems: Problems) -> float:
    """The constant of `CONSTANTS` that loses least, with a prior start."""
    return min(CONSTANTS, key=lambda constant: ucb(problems, constant=constant).regret.mean())


def gittins(problems: Problems) -> Played | None:
    """The arm with the largest finite-horizon Gittins index (Kaufmann 2018, arXiv 1601.01190): the sure reward a
    pull for which one would as soon give the arm up for good. The optimum for one arm against a sure one; near it for more.

    Returns:
        None where the table of indices would be too large.
    """
    pulls = problems.pulls
    if pulls > LONGEST_TABLE:
        return None
    table = _indices(pulls)
    return _play(
        problems, lambda wins, losses, time, _: table[pulls - time, wins.astype(int), losses.astype(int)]
    )


@cache
def _indices(pulls: int) -> Array:
    """[left, successes, failures], for 1 to `pulls` pulls that are left."""
    sure = np.linspace(0, 1, 401, dtype=np.float32)
    table = np.zeros((pulls + 1,) * 3, np.float32)
    value = np.zeros((pulls + 1, pulls + 1, len(sure)), np.float32)  # with one pull less
    for left in range(1, pulls + 1):
        seen = pulls - left + 1  # more cannot be known of an arm
        wins, losses = np.arange(seen)[:, None, None], np.arange(seen)[None, :, None]
        chance = ((wins + 1) / (wins + losses + 2)).astype(np.float32)
        pull = chance * (1 + value[1 : seen + 1, :seen]) + (1 - chance) * value[:seen, 1 : seen + 1]
        table[left, :seen, :seen] = sure[(pull >= left * sure - 1e-6).sum(2) - 1]
        value[:seen, :seen] = np.maximum(pull, left * sure)
    return table


def _play(problems: Problems, index: Callable[[Array, Array, int, np.random.Generator], Array]) -> Played:
    """Pull the arm with the largest index(wins, losses, pulls so far, random) each time; ties by chance."""
    env, random = problems.environment("regret"), np.random.default_rng([problems.seed, 1])
    env.reset(seed=problems.seed)
    rows, shape = np.arange(problems.count), (problems.count, problems.arms)
    wins, losses, regret = np.zeros(shape), np.zeros(shape), np.zeros(problems.count)
    for time in range(problems.pulls):
        value = index(wins, losses, time, random)
        tied = value == value.max(1, keepdims=True)
        arm = np.where(tied, random.random(shape), -1.0).argmax(1)
        _, reward, _, _, infos = env.step(arm)
        won = infos["seen_reward"]
        wins[rows, arm] += won
        losses[rows, arm] += 1 - won
        regret -= reward
    return Played(wins.sum(1), regret)
