"""Bernoulli bandits with uniform priors: the exact optimum, and strategies that people use."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np

__all__ = ["CONSTANTS", "optimum", "random_arms", "thompson", "tune_ucb", "ucb"]

Array = np.ndarray[Any, np.dtype[Any]]
CONSTANTS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.7, 1.0, 1.4)
"""Exploration constants that `tune_ucb` tries."""
MOST = 500_000  # states to go through: half a minute
DEEPEST = 300  # pulls: the recursion is as deep


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


def random_arms(chances: Array, pulls: int, random: np.random.Generator) -> Array:
    """Returns [N] of arms drawn uniformly; chances [N, arms]."""
    drawn = random.integers(chances.shape[1], size=(len(chances), pulls))
    won = random.random(drawn.shape) < np.take_along_axis(chances, drawn, 1)
    return np.asarray(won.sum(1), np.float64)


def thompson(chances: Array, pulls: int, random: np.random.Generator) -> Array:
    """Returns [N] of Thompson sampling (1933): an arm is drawn with the probability that it is the best one."""
    return _play(chances, pulls, random, lambda wins, losses, _: random.beta(wins + 1, losses + 1))


def ucb(
    chances: Array, pulls: int, random: np.random.Generator, *, constant: float, prior: bool = True
) -> Array:
    """Returns [N] of UCB1 (Auer et al. 2002), the arm with the largest mean + c sqrt(ln t / n).

    Args:
        constant: c; that of the paper is sqrt(2).
        prior: start from the mean and count of one success and one failure, instead of pulling each arm once first; with few
            pulls that is stronger.
    """

    def index(wins: Array, losses: Array, time: int) -> Array:
        count = wins + losses
        if prior:
            bonus = np.sqrt(np.log(time + 1) / (count + 1))
            return np.asarray((wins + 1) / (count + 2) + constant * bonus)
        bonus = np.sqrt(np.log(max(time, 1)) / np.maximum(count, 1))
        return np.where(count == 0, np.inf, wins / np.maximum(count, 1) + constant * bonus)

    return _play(chances, pulls, random, index)


def tune_ucb(arms: int, pulls: int, *, problems: int, seed: int) -> float:
    """The constant of `CONSTANTS` with the best mean return on problems of their own, with a prior start."""
    chances = np.random.default_rng([seed, 0]).random((problems, arms))
    return max(
        CONSTANTS, key=lambda c: ucb(chances, pulls, np.random.default_rng([seed, 1]), constant=c).mean()
    )


def _play(chances: Array, pulls: int, random: np.random.Generator, index: Any) -> Array:
    """Pull the arm with the largest index(wins, losses, pulls so far) each time; ties by chance."""
    rows = np.arange(len(chances))
    wins, losses = np.zeros(chances.shape), np.zeros(chances.shape)
    for time in range(pulls):
        value = index(wins, losses, time)
        tied = value == value.max(1, keepdims=True)
        arm = np.where(tied, random.random(chances.shape), -1.0).argmax(1)
        won = random.random(len(chances)) < chances[rows, arm]
        wins[rows, arm] += won
        losses[rows, arm] += ~won
    total: Array = wins.sum(1)
    return total
