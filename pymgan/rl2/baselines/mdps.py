"""Random tabular MDPs: what knowing the process is worth, and posterior sampling."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..environments.mdp import plan

__all__ = ["optimal_returns", "posterior_sampling", "random_returns"]

Array = np.ndarray[Any, np.dtype[Any]]


def optimal_returns(transitions: Array, means: Array, *, horizon: int, episodes: int) -> Array:
    """Expected returns [N] of a trial for one who knows the process from the start."""
    return np.asarray(plan(transitions, means, horizon)[:, 0, 0].max(1) * episodes)


def random_returns(transitions: Array, means: Array, *, horizon: int, episodes: int) -> Array:
    """Expected returns [N] of actions drawn uniformly."""
    state = np.zeros(transitions.shape[:2])
    state[:, 0], total = 1.0, np.zeros(len(state))
    for _ in range(horizon):
        total += np.einsum("ns,nsa->n", state, means) / means.shape[2]
        state = np.einsum("ns,nsax->nx", state, transitions) / means.shape[2]
    return total * episodes


def posterior_sampling(
    transitions: Array, means: Array, *, horizon: int, episodes: int, random: np.random.Generator
) -> Array:
    """Returns [N] of PSRL (Osband et al. 2013, arXiv 1306.0940): before each episode, plan for a process drawn from the
    posterior.

    The priors are those that `TabularMDPs` draws from: Dirichlet(1), and means N(1, 1) under noise N(0, 1).
    """
    count, states = means.shape[:2]
    rows = np.arange(count)
    seen, visits, sums = np.zeros(transitions.shape), np.zeros(means.shape), np.zeros(means.shape)
    cumulative, total = transitions.cumsum(-1), np.zeros(count)
    for _ in range(episodes):
        drawn = random.standard_gamma(seen + 1)
        drawn /= drawn.sum(-1, keepdims=True)
        mean = (1 + sums) / (1 + visits) + random.standard_normal(means.shape) / np.sqrt(1 + visits)
        best = plan(drawn, mean, horizon).argmax(3)
        state = np.zeros(count, np.int64)
        for step in range(horizon):
            action = best[rows, step, state]
            reward = means[rows, state, action] + random.standard_normal(count)
            after = (cumulative[rows, state, action] < random.random((count, 1))).sum(1).clip(max=states - 1)
            np.add.at(seen, (rows, state, action, after), 1)
            visits[rows, state, action] += 1
            sums[rows, state, action] += reward
            total += reward
            state = after
    return total
