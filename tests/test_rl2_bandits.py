"""Problems whose answers are known: bandits and tabular MDPs, their optima and their baselines."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from functools import cache, partial
from operator import itemgetter
from typing import Any

import numpy as np
import pytest
from gymnasium.vector import VectorEnv

from pymgan.rl2.baselines import bandits, mdps
from pymgan.rl2.environments import BernoulliBandits, TabularMDPs
from pymgan.rl2.environments.known import KnownProblems
from pymgan.rl2.learn import Learner
from pymgan.rl2.policy import Policy
from pymgan.rl2.studies import bandit as study

drawn = BernoulliBandits._draw


@cache
def by_histories(arms: int, history: tuple[tuple[int, int], ...], left: int) -> float:
    """The optimum without any insight: a maximum over arms after every history of (arm, reward)."""
    if left == 0:
        return 0.0
    best = 0.0
    for arm in range(arms):
        rewards = [reward for pulled, reward in history if pulled == arm]
        chance = (sum(rewards) + 1) / (len(rewards) + 2)
        won, lost = (by_histories(arms, (*history, (arm, reward)), left - 1) for reward in (1, 0))
        best = max(best, chance * (1 + won) + (1 - chance) * lost)
    return best


@pytest.mark.parametrize(("arms", "pulls"), [(1, 4), (2, 5), (3, 5), (5, 4)])
def test_the_optimum_is_that_over_all_histories(arms: int, pulls: int) -> None:
    assert bandits.optimum(arms, pulls) == pytest.approx(by_histories(arms, (), pulls), abs=1e-12)


def test_what_cannot_be_gone_through_is_not_claimed() -> None:
    assert bandits.optimum(5, 100) is None
    assert bandits.optimum(1, 10_000) is None


def test_baselines_stand_in_the_known_order() -> None:
    test = bandits.Problems(20_000, 5, 10, seed=0)
    constant = bandits.tune_ucb(bandits.Problems(5_000, 5, 10, seed=1))
    gittins = bandits.gittins(test)
    assert gittins is not None
    played = {
        "gittins": gittins,
        "ucb": bandits.ucb(test, constant=constant),
        "thompson": bandits.thompson(test),
        "paper": bandits.ucb(test, constant=2**0.5, prior=False),
        "random": bandits.random_arms(test),
    }
    mean = {name: float(each.paid.mean()) for name, each in played.items()}
    best = bandits.optimum(5, 10)
    assert best is not None
    assert mean["gittins"] == pytest.approx(best, abs=0.05)
    assert best + 0.05 > mean["ucb"] > 0.985 * best
    assert mean["ucb"] > mean["thompson"] > mean["random"]
    assert mean["random"] == pytest.approx(5.0, abs=0.05)
    assert mean["paper"] < mean["ucb"]
    for each in played.values():  # the mean of the best of five chances is 5/6
        assert each.regret.mean() == pytest.approx(10 * 5 / 6 - each.paid.mean(), abs=0.06)
    lost = {name: float(each.regret.mean()) for name, each in played.items()}
    assert 10 * 5 / 6 - best - 0.01 < lost["gittins"] < lost["ucb"] + 0.01


def test_of_one_arm_and_a_sure_one_the_index_is_the_optimum() -> None:
    """A second arm that pays with a known chance: pull the unknown one exactly while its index is larger."""

    @cache
    def value(wins: int, losses: int, left: int, sure: float) -> float:
        if left == 0:
            return 0.0
        chance = (wins + 1) / (wins + losses + 2)
        won, lost = (value(wins + w, losses + 1 - w, left - 1, sure) for w in (1, 0))
        return max(sure * left, chance * (1 + won) + (1 - chance) * lost)

    table = bandits._indices(7)
    for left, wins, losses in itertools.product(range(1, 8), range(3), range(3)):
        if wins + losses + left <= 7:
            index = float(table[left, wins, losses])
            assert value(wins, losses, left, index - 0.004) > (index - 0.004) * left
            assert value(wins, losses, left, index + 0.004) == pytest.approx(
                (index + 0.004) * left, abs=1e-12
            )
    assert bandits.gittins(bandits.Problems(2, 2, 1_000, seed=0)) is None


@pytest.mark.parametrize(("arms", "first"), [(4, 1), (1, 3)])
def test_each_arm_is_pulled_once_first(arms: int, first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the paper: arms that never pay, and one that always does, which any order of first pulls finds."""

    def draw(env: BernoulliBandits) -> None:
        env.chances = np.zeros((200, arms))
        env.chances[:, -1] = 1.0

    monkeypatch.setattr(BernoulliBandits, "_draw", lambda env: (drawn(env), draw(env)))
    played = bandits.ucb(bandits.Problems(200, arms, max(arms, first), seed=0), constant=0.0, prior=False)
    assert (played.paid == first).all()


@pytest.mark.parametrize("env", [BernoulliBandits(64, arms=4, pulls=5), TabularMDPs(64, states=6, actions=3)])
def test_environments_keep_gymnasiums_rules(env: VectorEnv[Any, Any, Any]) -> None:
    def trial(seed: int) -> list[Any]:
        seen, infos = env.reset(seed=seed)
        env.action_space.seed(seed)
        rows = [seen]
        for _ in range(2 * env.trial_steps):  # type: ignore[attr-defined]
            assert env.observation_space.contains(seen)
            seen, *rest, infos = env.step(env.action_space.sample())
            assert all(each.shape == (64,) for each in rest)
            rows += [seen, *rest]
        del infos
        return rows

    first, second, other = trial(0), trial(0), trial(1)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_arms_pay_as_often_as_they_should() -> None:
    env = BernoulliBandits(50, arms=3, pulls=10_000)
    env.reset(seed=0)
    chances = env.chances.copy()
    paid = np.zeros(50)
    for _ in range(4000):
        paid += env.step(np.full(50, 1))[1]
    np.testing.assert_allclose(paid / 4000, chances[:, 1], atol=0.035)


def test_processes_move_and_pay_as_they_say() -> None:
    env = TabularMDPs(20_000, states=3, actions=2, horizon=2, episodes=1)
    env.reset(seed=0)
    env.transitions[:], env.means[:] = env.transitions[0], env.means[0]
    env._cumulative = env.transitions.cumsum(-1)
    seen, rewards, *_ = env.step(np.ones(20_000, int))
    share = np.bincount(seen, minlength=3) / 20_000
    np.testing.assert_allclose(share, env.transitions[0, 0, 1], atol=0.015)
    assert rewards.mean() == pytest.approx(env.means[0, 0, 1], abs=0.03)
    assert rewards.std() == pytest.approx(1.0, abs=0.03)


def test_regrets_add_up_to_what_is_paid_less_the_best() -> None:
    """In expectation, whoever acts: here one who plays the first half of the arms or actions more often than the others."""
    draws = 20_000
    for make in (
        partial(BernoulliBandits, draws, arms=4, pulls=6),
        partial(TabularMDPs, draws, states=4, actions=4, horizon=3, episodes=2),
    ):
        sums = {}
        for reward in ("paid", "regret"):
            env: Any = make(reward=reward)
            env.reset(seed=5)
            if reward == "paid":
                best = (
                    env.chances.max(1) * 6
                    if isinstance(env, BernoulliBandits)
                    else mdps.optimal_returns(env.transitions, env.means, horizon=3, episodes=2)
                )
            random = np.random.default_rng(6)
            shown = []
            total = np.zeros(draws)
            for _ in range(6):
                action = np.minimum(random.integers(4, size=draws), random.integers(4, size=draws))
                rewards, infos = itemgetter(1, 4)(env.step(action))
                total += rewards
                shown.append(infos.get("seen_reward", rewards))
            sums[reward] = total, np.stack(shown)
        assert np.array_equal(sums["paid"][1], sums["regret"][1]), "the policy is shown the same"
        difference = sums["paid"][0] - best - sums["regret"][0]
        assert abs(difference.mean()) < 4 * difference.std() / draws**0.5
        assert (sums["regret"][0] <= 0).all()
        assert sums["regret"][0].std() < sums["paid"][0].std()


def test_who_knows_regrets_nothing() -> None:
    """infos["known"] is about the step that comes next, in every problem and after every reset."""
    bandit = BernoulliBandits(50, arms=4, pulls=3, reward="regret")
    process = TabularMDPs(50, states=4, actions=4, horizon=3, episodes=2, reward="regret")
    env: KnownProblems
    for env in (bandit, process):
        _, infos = env.reset(seed=7)
        for _ in range(2 * env.trial_steps):
            known = infos["known"]
            assert known.shape == (50, env.known)
            np.testing.assert_allclose(known.sum(1), 0.0, atol=1e-4)
            if env is bandit:  # whose regrets are those of who does not know
                arms = bandit.chances - bandit.chances.mean(1, keepdims=True)
                np.testing.assert_allclose(known, arms, atol=1e-6)
            other = np.where(np.arange(50) % 2, known.argmax(1), known.argmin(1))
            rewards, infos = itemgetter(1, 4)(env.step(other))
            gap = known.max(1) - known.min(1)
            if env is process:
                np.testing.assert_allclose(rewards, np.where(np.arange(50) % 2, 0.0, -gap), atol=1e-5)


def test_a_bandits_regret_is_that_of_who_saw_what_was_paid() -> None:
    """Against chances drawn from the posterior; after a reset nothing is left of what was seen."""
    random, draws = np.random.default_rng(8), 100_000
    env = BernoulliBandits(6, arms=3, pulls=40, reward="regret")
    env.reset(seed=9)
    for _ in range(2):
        wins, losses = np.ones((2, 6, 3))
        for time in range(40):
            action = np.minimum(random.integers(3, size=6), random.integers(3, size=6))
            rewards, infos = itemgetter(1, 4)(env.step(action))
            if time % 13 == 0:
                chances = random.beta(wins, losses, (draws, 6, 3))
                loss = chances.max(2) - chances[:, np.arange(6), action]
                error = 5 * loss.std(0) / draws**0.5 + 2e-4  # of the draws, and of the grid
                assert (abs(loss.mean(0) + rewards) < error).all()
            wins[np.arange(6), action] += infos["seen_reward"]
            losses[np.arange(6), action] += 1 - infos["seen_reward"]


def test_planning_finds_the_best_of_all_policies() -> None:
    env = TabularMDPs(4, states=2, actions=2, horizon=3, episodes=1)
    env.reset(seed=2)
    value = mdps.optimal_returns(env.transitions, env.means, horizon=3, episodes=1)
    for process in range(4):
        best = -np.inf
        for choice in itertools.product(range(2), repeat=6):  # an action for each of 3 steps and 2 states
            state, total = np.array([1.0, 0.0]), 0.0
            for step in range(3):
                action = [choice[2 * step + s] for s in range(2)]
                total += sum(state[s] * env.means[process, s, action[s]] for s in range(2))
                state = sum(state[s] * env.transitions[process, s, action[s]] for s in range(2))
            best = max(best, total)
        assert value[process] == pytest.approx(best, abs=1e-12)


def test_knowing_is_better_than_sampling_than_chance() -> None:
    env = TabularMDPs(300)
    env.reset(seed=0)
    span = {"horizon": 10, "episodes": 10}
    informed = mdps.optimal_returns(env.transitions, env.means, **span).mean()
    sampling = mdps.posterior_sampling(
        env.transitions, env.means, **span, random=np.random.default_rng(0)
    ).mean()
    chance = mdps.random_returns(env.transitions, env.means, **span).mean()
    assert informed > sampling + 10 > chance + 20
    assert chance == pytest.approx(100, abs=4)  # mean rewards are 1


@pytest.mark.parametrize(
    ("command", "keys"),
    [
        (
            ["bandit", "--arms", "3", "--pulls", "4"],
            {"return", "optimum", "thompson", "ucb1", "random", "problems", "wall_s"},
        ),
        (
            ["mdp", "--states", "3", "--actions", "2", "--horizon", "2"],
            {"return", "informed", "psrl", "random"},
        ),
    ],
)
def test_the_last_line_is_one_json_object(command: list[str], keys: set[str]) -> None:
    small = ["--updates", "2", "--problems", "50", "--hidden", "4", "--no-progress", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "pymgan.rl2", *command, *small], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert keys <= result.keys()
    assert result["problems"] == 50


def test_a_long_trial_is_learned_after_shorter_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = []

    def follow(learner: Learner, callback: Any = None, *, until: int | None = None) -> Policy:
        learner.done = learner.updates if until is None else until
        lengths.append((learner._player.env.trial_steps, learner.done))  # type: ignore[attr-defined]
        return learner.policy

    monkeypatch.setattr(Learner, "run", follow)
    study.train(3, 100, updates=100)
    study.train(3, 10, updates=100)
    assert lengths == [(10, 10), (30, 20), (100, 100), (10, 100)]


def test_bad_input_is_one_line() -> None:
    command = [sys.executable, "-m", "pymgan.rl2", "bandit", "--arms", "0", "--updates", "1", "--no-progress"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "expected arms >= 1, got 0" in done.stderr
    assert "Traceback" not in done.stderr
