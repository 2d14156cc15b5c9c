"""The minimax games: their mathematics, the optimisers' formulas, the environment's manners, the baselines' tuning."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode

from pymgan.rl2.baselines.minimax import Grid, constant
from pymgan.rl2.environments.minimax import BOUND, FLOOR, SEEN, MinimaxGames, log_distance
from pymgan.rl2.environments.minimax_games import DISTRIBUTIONS, FAMILIES, KINDS, Games, Players, draw
from pymgan.rl2.learn import learn
from pymgan.rl2.policy import Policy
from pymgan.rl2.studies import minimax as studied
from pymgan.rl2.studies.minimax import LEARNING, TRAINING, _Watched, study, table

SLOW = 1e-3


def some(count=64, distribution="paper", seed=0, **kw):
    return draw(count, np.random.default_rng(seed), distribution=distribution, **kw)


def f(games, n, x, y):
    """The value of game n, written out by hand."""
    a, b = games.a[n], games.b[n]
    x, y = x - games.centre_x[n], y - games.centre_y[n]
    return {
        "saddle": lambda: a * x[0] ** 2 - b * y[0] ** 2,
        "rotated saddle": lambda: a * x[0] ** 2 - b * y[0] ** 2 + 2 * x[0] * y[0],
        "seesaw": lambda: -b * y[0] * np.sin(a * np.pi * x[0]),
        "matrix": lambda: x @ games.coupling[n] @ y,
    }[FAMILIES[games.family[n]]]()


def centred(games, seed=3):
    """The same games with their equilibria moved to places of their own."""
    rng = np.random.default_rng(seed)
    moved = rng.normal(size=(2, len(games), games.side))
    moved[:, games.family != FAMILIES.index("matrix"), 1:] = 0.0
    return Games(games.family, games.a, games.b, games.coupling, *moved)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_values_and_slopes_are_those_of_the_formulas(distribution):
    games, x, y = some(distribution=distribution)
    games = centred(games)
    assert set(games.family) == set(range(4))
    value, slope_x, slope_y = games.value(x, y), games.slope_x(x, y), games.slope_y(x, y)
    step = 1e-6
    for n in range(len(games)):
        assert value[n] == pytest.approx(f(games, n, x[n], y[n]), rel=1e-12, abs=1e-12)
        for i in range(games.side if games.family[n] == FAMILIES.index("matrix") else 1):
            e = step * np.eye(games.side)[i]
            by_x = (f(games, n, x[n] + e, y[n]) - f(games, n, x[n] - e, y[n])) / (2 * step)
            by_y = (f(games, n, x[n], y[n] + e) - f(games, n, x[n], y[n] - e)) / (2 * step)
            size = max(1.0, abs(slope_x[n]).max(), abs(slope_y[n]).max())
            assert slope_x[n, i] == pytest.approx(by_x, abs=1e-6 * size)
            assert slope_y[n, i] == pytest.approx(by_y, abs=1e-6 * size)


def test_a_game_of_one_dimension_never_leaves_its_line():
    games, x, y = some(distribution="wide")
    line = games.family != FAMILIES.index("matrix")
    players = Players(games, x, y)
    rng = np.random.default_rng(1)
    for _ in range(20):
        players.step(rng.integers(4, size=64), np.full(64, SLOW), np.full(64, SLOW))
    assert not players.x[line, 1:].any()
    assert not players.y[line, 1:].any()


def test_equilibria_are_stationary_saddle_points_at_distance_zero():
    games, x, y = some(256, "wide")
    games = centred(games)
    x, y = np.zeros_like(x), np.zeros_like(y)
    seesaw = games.family == FAMILIES.index("seesaw")
    x[seesaw, 0] = np.random.default_rng(2).integers(-3, 4, seesaw.sum()) / games.a[seesaw]
    for n in np.flatnonzero(games.family == FAMILIES.index("matrix")):  # any point of the null spaces
        left, sizes, right = np.linalg.svd(games.coupling[n])
        x[n] = left[:, sizes < 1e-9].sum(1)
        y[n] = right[sizes < 1e-9].sum(0)
    x, y = x + games.centre_x, y + games.centre_y
    size = 1 + np.abs(games.coupling).sum((1, 2)) + (10 + games.a) * (10 + games.b)
    assert (np.abs(games.slope_x(x, y)).max(-1) < 1e-13 * size).all()
    assert (np.abs(games.slope_y(x, y)).max(-1) < 1e-13 * size).all()
    assert (games.distance(x, y) < 1e-13).all()
    # f(x*, y) <= f(x*, y*) <= f(x, y*)
    rng = np.random.default_rng(4)
    for _ in range(20):
        move = rng.normal(size=x.shape)
        move[games.family != FAMILIES.index("matrix"), 1:] = 0.0
        slack = 1e-12 * size * (1 + (move**2).sum(-1))
        assert (games.value(x, y + move) <= games.value(x, y) + slack).all()
        assert (games.value(x + move, y) >= games.value(x, y) - slack).all()


def test_some_matrices_are_singular_and_their_null_spaces_do_not_count():
    games, x, y = some(256, families=("matrix",))
    sizes = np.linalg.svd(games.coupling, compute_uv=False)
    singular = sizes[:, -1] < 1e-9
    assert 0.05 < singular.mean() < 0.95
    assert (games.distance(x, y)[singular] < np.sqrt((x**2 + y**2).sum(-1))[singular]).all()
    regular = ~singular
    np.testing.assert_allclose(
        games.distance(x, y)[regular], np.sqrt((x**2 + y**2).sum(-1))[regular], rtol=1e-12
    )


def test_seesaw_distance_is_to_the_nearest_of_its_equilibria():
    one = np.ones(1)
    games = Games(np.array([FAMILIES.index("seesaw")]), 2 * one, one, np.zeros((1, 1, 1)))
    for x, away in ((0.1, 0.1), (0.4, 0.1), (-0.9, 0.1), (0.25, 0.25)):
        assert games.distance(np.array([[x]]), np.zeros((1, 1)))[0] == pytest.approx(away)


def by_hand(games, n, kind, x, y, before, rate_x, rate_y):
    """One step of game n, from the formulas; `before` holds the slopes of the step before, or None."""
    one = games.take(np.array([n]))

    def gx(x, y):
        return one.slope_x(x[None], y[None])[0]

    def gy(x, y):
        return one.slope_y(x[None], y[None])[0]

    if kind == "simultaneous":
        return x - rate_x * gx(x, y), y + rate_y * gy(x, y), (gx(x, y), gy(x, y))
    if kind == "alternating":
        new = x - rate_x * gx(x, y)
        return new, y + rate_y * gy(new, y), (gx(x, y), gy(new, y))
    if kind == "optimistic":
        old = before or (gx(x, y), gy(x, y))
        new = x - rate_x * (2 * gx(x, y) - old[0])
        return new, y + rate_y * (2 * gy(x, y) - old[1]), (gx(x, y), gy(x, y))
    half_x, half_y = x - rate_x * gx(x, y), y + rate_y * gy(x, y)
    return (
        x - rate_x * gx(half_x, half_y),
        y + rate_y * gy(half_x, half_y),
        (gx(x, y), gy(x, y)),
    )


def test_mixed_kinds_step_as_their_formulas_say():
    games, x, y = some(32, "wide")
    rng = np.random.default_rng(5)
    players = Players(games, x, y)
    wanted = [(x[n], y[n], None) for n in range(32)]
    for _ in range(12):
        kind, rates = rng.integers(4, size=32), 10.0 ** rng.uniform(-3, -2, (2, 32))
        players.step(kind, *rates)
        wanted = [by_hand(games, n, KINDS[kind[n]], *wanted[n], *rates[:, n]) for n in range(32)]
        np.testing.assert_allclose(players.x, [w[0] for w in wanted], rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(players.y, [w[1] for w in wanted], rtol=1e-12, atol=1e-14)


def test_on_a_bilinear_game_the_methods_behave_as_is_known():
    """Simultaneous steps leave, alternating ones circle, optimistic and extragradient ones arrive (Daskalakis et al. 2018)."""
    one = np.ones(1)
    games = Games(np.array([FAMILIES.index("matrix")]), one, one, np.ones((1, 1, 1)))
    start = np.full((1, 1), 0.5)
    far = {kind: constant(games, start, start, kind, 0.3 * one, 0.3 * one, (500,))[0, 0] for kind in KINDS}
    assert far["simultaneous"] == np.log10(BOUND)
    assert -0.6 < far["alternating"] < 0.1
    assert far["optimistic"] < -4
    assert far["extragradient"] < -6
    # |1 - s + i sqrt(s)| with s = rate²: what a step of extragradient keeps of the distance.
    s = 0.3**2
    kept = constant(games, start, start, "extragradient", 0.3 * one, 0.3 * one, (10, 110))
    assert kept[1, 0] - kept[0, 0] == pytest.approx(50 * np.log10((1 - s) ** 2 + s), rel=1e-9)


def act(env, rng, size=0.3):
    return {
        "kind": rng.integers(len(KINDS), size=env.num_envs),
        "rates": rng.uniform(-size, size, (env.num_envs, 2)).astype(np.float32),
    }


def play(seed, count=40, num_envs=16, **kw):
    env = MinimaxGames(num_envs, **kw)
    rng = np.random.default_rng(9)
    history = [env.reset(seed=seed)[0]]
    for _ in range(count):
        observation, reward, terminated, truncated, _ = env.step(act(env, rng))
        assert not truncated.any()
        history += [observation, reward, terminated]
    return history


def test_the_same_seed_repeats_to_the_bit_and_another_does_not():
    first, again, other = play(3), play(3), play(4)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_spaces_contain_what_is_seen_and_done():
    env = MinimaxGames(8, steps=40, each=10)
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    assert env.single_observation_space.contains(observation[0])
    env.action_space.seed(0)
    for _ in range(30):
        action = env.action_space.sample()
        assert env.action_space.contains(action)
        observation, reward, terminated, _, infos = env.step(action)
        assert env.observation_space.contains(observation)
        assert reward.shape == terminated.shape == (8,)
        assert np.isfinite(reward).all()
        if terminated.any():
            assert (infos["_final_obs"] == terminated).all()
            assert env.observation_space.contains(infos["final_obs"])


def test_a_trial_has_its_length_and_a_new_game_begins_in_the_same_step():
    env = MinimaxGames(6, steps=60, each=20, distribution="paper")
    assert env.trial_steps == 3
    assert env.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    first, _ = env.reset(seed=1)
    games = env.players.games
    still = {"kind": np.zeros(6, np.int64), "rates": np.full((6, 2), -0.5, np.float32)}
    for step in range(6):
        observation, _, terminated, _, infos = env.step(still)
        assert terminated.all() == terminated.any() == (step % 3 == 2)
        if terminated.all():
            assert not np.array_equal(env.players.games.a, games.a)
            np.testing.assert_array_equal(observation, first)
            assert not np.array_equal(infos["final_obs"], observation)
            assert env.players.fresh.all()
            assert not env.taken.any()
            assert (env.log_rates == -2).all()
        else:
            assert not np.array_equal(observation, first)


def test_rewards_add_up_to_the_fall_of_the_distance():
    env = MinimaxGames(64, steps=100, each=10, distribution="paper", start_rate=SLOW)
    _, infos = env.reset(seed=2)
    total, before = np.zeros(64), infos["log_distance"]
    rng = np.random.default_rng(0)
    for _ in range(10):
        _, reward, terminated, _, infos = env.step(act(env, rng, 0.1))
        total += reward
    assert terminated.all()
    assert not infos["diverged"].any()
    np.testing.assert_allclose(total, before - infos["log_distance"], atol=1e-12)


def test_divergence_ends_the_game_and_costs():
    env = MinimaxGames(32, steps=1000, each=10, families=("saddle",), start_rate=100.0, penalty=7.0)
    _, infos = env.reset(seed=0)
    before = infos["log_distance"]
    still = {"kind": np.zeros(32, np.int64), "rates": np.zeros((32, 2), np.float32)}
    observation, reward, terminated, _, infos = env.step(still)
    assert infos["diverged"].all()
    assert terminated.all()
    np.testing.assert_allclose(reward, before - np.log10(BOUND) - 7.0)
    assert env.observation_space.contains(observation)
    assert (env.players.games.distance(env.players.x, env.players.y) < 1).all()  # new games


def test_a_new_game_leaves_the_others_alone():
    """Games that diverge are replaced; those beside them go on as they would have."""
    env = MinimaxGames(2, steps=1000, each=10, families=("saddle",))
    env.reset(seed=0)
    rates = np.array([[1.0, 1.0], [0.0, 0.0]], np.float32)
    kind = np.zeros(2, np.int64)
    games, x, y = env.players.games.take([1]), env.players.x[1:], env.players.y[1:]
    over = 0
    for _ in range(5):
        terminated = env.step({"kind": kind, "rates": rates})[2]
        over += terminated[0]
        assert not terminated[1]
    assert over
    alone = constant(games, x, y, "simultaneous", np.full(1, 0.01), np.full(1, 0.01), (50,))
    assert env._log_distance[1] == alone[0, 0]


def test_evaluations_are_counted():
    env = MinimaxGames(4, steps=100, each=10)
    env.reset(seed=0)
    still = {"kind": np.arange(4), "rates": np.full((4, 2), -0.5, np.float32)}
    for step in (1, 2):
        assert env.step(still)[4]["evaluations"].tolist() == [10 * step] * 3 + [20 * step]


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_the_equilibrium_cannot_be_seen(distribution):
    """Moving a game together with its players changes no observation, so none tells where the equilibrium is."""
    seen = []
    for moved in (False, True):
        env = MinimaxGames(64, steps=100, each=10, distribution=distribution, start_rate=SLOW)
        env.reset(seed=5)
        if moved:
            games = centred(env.players.games)
            env.players = Players(games, env.players.x + games.centre_x, env.players.y + games.centre_y)
        rng = np.random.default_rng(1)
        rows = [env.step(act(env, rng, 0.1))[0] for _ in range(5)]
        seen.append(np.stack(rows))
    np.testing.assert_allclose(seen[0], seen[1], atol=1e-4)


def test_the_value_of_the_game_cannot_be_seen(monkeypatch):
    seen, value = [], Games.value
    for more in (0.0, 1.0):
        monkeypatch.setattr(Games, "value", lambda self, x, y, more=more: value(self, x, y) + more)
        env = MinimaxGames(8, steps=100, each=10)
        env.reset(seed=5)
        seen.append(env.step(act(env, np.random.default_rng(0)))[0])
    np.testing.assert_allclose(seen[0], seen[1], atol=1e-4)
    assert np.abs(seen[0][:, SEEN.index("change of f for the slope and the move")]).max() > 0


def test_thousands_of_games_at_once():
    env = MinimaxGames(4096, steps=20, each=10)
    observation, infos = env.reset(seed=0)
    assert observation.shape == (4096, len(SEEN))
    counts = np.bincount(infos["family"], minlength=4)
    assert (np.abs(counts - 1024) < 150).all()
    rng = np.random.default_rng(0)
    env.step(act(env, rng))
    assert env.step(act(env, rng))[2].all()


def test_the_curvature_of_a_saddle_is_seen():
    env = MinimaxGames(16, steps=100, each=10, families=("saddle",))
    env.reset(seed=0)
    still = {"kind": np.zeros(16, np.int64), "rates": np.zeros((16, 2), np.float32)}
    observation = env.step(still)[0]
    place = SEEN.index("curvature of x times rate")
    np.testing.assert_allclose(observation[:, place], 0.01 * 2 * env.players.games.a, rtol=1e-5)


def test_what_does_not_fit_is_refused():
    for wrong in (
        {"num_envs": 0},
        {"steps": 15},
        {"each": 1},
        {"distribution": "narrow"},
        {"families": ()},
        {"families": ("chess",)},
        {"reach": 0.0},
        {"start_rate": 1e9},
    ):
        with pytest.raises(ValueError, match=r"\[rl2\] expected .*, got "):
            MinimaxGames(**wrong)
    env = MinimaxGames(2)
    env.reset(seed=0)
    good = {"kind": np.zeros(2, np.int64), "rates": np.zeros((2, 2), np.float32)}
    for wrong in (
        {"kind": np.full(2, 4)},
        {"kind": np.zeros(3, np.int64)},
        {"rates": np.full((2, 2), 1.5)},
        {"rates": np.full((2, 2), np.nan)},
    ):
        with pytest.raises(ValueError, match=r"\[rl2\] expected .*, got "):
            env.step(good | wrong)
    games, x, y = some(4)
    with pytest.raises(ValueError, match="marks"):
        constant(games, x, y, "simultaneous", np.ones(4), np.ones(4), (15,))


def test_baselines_play_as_the_environment_does():
    env = MinimaxGames(64, steps=100, each=10)
    env.reset(seed=7)
    games, x, y = env.players.games, env.players.x.copy(), env.players.y.copy()
    kinds = np.arange(64) % 4
    still = {"kind": kinds, "rates": np.zeros((64, 2), np.float32)}
    for _ in range(10):
        infos = env.step(still)[4]
    for number, kind in enumerate(KINDS):
        far = constant(games, x, y, kind, np.full(64, 0.01), np.full(64, 0.01), (100,))
        np.testing.assert_array_equal(far[0][kinds == number], infos["log_distance"][kinds == number])


def test_tuning_finds_what_is_known_and_leaves_the_first_grid():
    """One saddle: the best rates are 1 / (2 a) and 1 / (2 b), wherever they are."""
    count = 4
    family = np.zeros(count, np.int64)
    a, b = np.full(count, 0.01), np.full(count, 500.0)
    games = Games(family, a, b, np.zeros((count, 1, 1)))
    rng = np.random.default_rng(0)
    x, y = rng.uniform(0.2, 0.5, (2, count, 1))
    best = Grid(games, x, y, "simultaneous", (10,)).best("mixture", 10)
    assert best.rate_x == pytest.approx(50, rel=0.1)
    assert best.rate_y == pytest.approx(0.001, rel=0.1)
    check = constant(games, x, y, best.kind, np.full(count, best.rate_x), np.full(count, best.rate_y), (10,))
    assert check.mean() == pytest.approx(best.mean)


def test_distances_are_kept_within_their_floor_and_bound():
    one = np.ones(1)
    games = Games(np.zeros(1, np.int64), one, one, np.zeros((1, 1, 1)))
    zero = np.zeros((1, 1))
    for x, wanted in ((0.0, FLOOR), (1e-9, 1e-9), (1e9, BOUND), (np.inf, BOUND), (np.nan, BOUND)):
        assert log_distance(games, zero + x, zero)[0] == pytest.approx(np.log10(wanted))


def test_an_untrained_controller_is_a_constant_method():
    """Its likeliest action is the first kind and no change of rates, so it must be found where `constant` finds that."""
    env = _Watched(64, steps=1000, each=10, start_rate=0.3, distribution="wide")
    policy = Policy(env.single_observation_space, env.single_action_space, hidden=4)
    found = env.follow(policy, 11)
    env.reset(seed=11)
    players, rate = env.players, np.full(64, 10.0 ** np.log10(0.3))
    far = constant(players.games, players.x, players.y, KINDS[0], rate, rate, (100, 1000))
    assert (far == np.log10(BOUND)).any()
    assert (far < -3).any()
    for measure in ("steps", "evaluations"):
        np.testing.assert_array_equal(found[measure, 100], far[0])
        np.testing.assert_array_equal(found[measure, 1000], far[1])


def test_at_equal_evaluations_an_extragradient_controller_takes_half_the_steps():
    env = _Watched(16, steps=1000, each=10, distribution="paper")
    policy = Policy(env.single_observation_space, env.single_action_space, hidden=4)
    with torch.no_grad():
        policy.actor.bias[KINDS.index("extragradient")] = 1.0
    found = env.follow(policy, 3)
    env.reset(seed=3)
    players, rate = env.players, np.full(16, 0.01)
    far = constant(players.games, players.x, players.y, "extragradient", rate, rate, (50, 100, 500, 1000))
    for measure, rows in (("evaluations", far[::2]), ("steps", far[1::2])):
        np.testing.assert_array_equal(found[measure, 100], rows[0])
        np.testing.assert_array_equal(found[measure, 1000], rows[1])


def test_a_study_repeats_and_prints_its_table(monkeypatch):
    monkeypatch.setattr(studied, "MARKS", (20, 40))
    small = {"updates": 2, "num_envs": 8, "steps": 20, "validation": 16, "problems": 32}
    said, updates = [], []
    first = study(**small, controllers=2, say=said.append, callback=updates.append)
    assert len(said) == len(KINDS)
    assert [update.number for update in updates] == [0, 1, 0, 1]
    again = json.loads(json.dumps(study(**small, controllers=2)))
    assert first["rows"] == again["rows"]
    assert first["baselines"] == again["baselines"]
    assert {row["family"] for row in first["rows"]} == {*FAMILIES, "mixture"}
    for row in first["rows"]:
        assert row["mixture_difference"]["mean"] == pytest.approx(
            row["controller"]["mean"] - row["mixture_best"]["mean"]
        )
        assert row["controller"]["mean"] == pytest.approx(np.mean(row["by_seed"]))
    assert first["held_out"] == first["training"]["distribution"] == "wide"
    text = table(first)
    for word in ("after 20 steps", "after 40 evaluations of the slopes", *FAMILIES, "mixture", "±"):
        assert word in text


@pytest.mark.slow
def test_a_controller_learns_to_beat_every_constant_method():
    """Two minutes of training are enough for the mixture after 100 steps, whose best constant method reaches about -3.3."""
    policy = learn(MinimaxGames(**{**TRAINING, "num_envs": 256}), LEARNING, updates=150)
    env = _Watched(512, steps=1000, each=10)
    assert env.follow(policy, 2**33)["steps", 100].mean() < -4
