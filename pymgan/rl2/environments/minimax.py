"""The minimax games of Twin-L2O as an environment: the action steers the players' optimiser, one game is one trial."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from .minimax_games import EXTRAGRADIENT, FAMILIES, KINDS, Games, Players, draw

__all__ = ["BOUND", "FLOOR", "SEEN", "MinimaxGames", "log_distance"]

Array = NDArray[np.float64]

FLOOR = 1e-12  # distances below it count as it
BOUND = 1e3  # a game whose distance exceeds it has diverged, for good
TINY = 1e-300  # below every size of which a logarithm is taken
LIMIT = 5.0  # of every observation

# What the optimiser sees, in order. "Turn" is 1 minus the cosine of successive slopes, over what the m steps saw.
SEEN = (
    "log rate of x",
    "log rate of y",
    "log slope of x",
    "log slope of y",
    "fall of the slope of x",
    "fall of the slope of y",
    "last fall of the slope of x",
    "last fall of the slope of y",
    "turn of the slope of x",
    "turn of the slope of y",
    "turn of both slopes",
    "curvature of x times rate",
    "curvature of y times rate",
    "log change of slope of x for a move of x, times rate",
    "log change of slope of y for a move of y, times rate",
    "log change of both slopes for a move of both, times rates",
    "change of f for the slope and the move",
    "log steps taken",
)


def log_distance(games: Games, x: Array, y: Array) -> Array:
    """log10 of the distance to the nearest equilibrium, [N], within log10 of [FLOOR, BOUND]; what is not finite is at BOUND."""
    with np.errstate(invalid="ignore", over="ignore"):
        distance = games.distance(x, y)
    logarithm: Array = np.log10(np.clip(np.where(np.isfinite(distance), distance, BOUND), FLOOR, BOUND))
    return logarithm


class MinimaxGames(VectorEnv[NDArray[np.float32], dict[str, Any], NDArray[Any]]):
    """N games at once. An environment step changes the optimiser and then lets the players take m steps with it.

    Observation, float32 [len(SEEN)] within [-5, 5]: what the slopes that the optimiser evaluated anyway tell it. Neither the
    family nor the equilibrium nor the value of f is among it, and it stays as it is where the game and its players are moved.

    Action: ``{"kind": which optimiser, of KINDS, "rates": two numbers of [-1, 1]}``; those, times `reach`, are added to the
    decimal logarithms of the rates of x and of y.

    Reward: by how much log10 of the distance to the nearest equilibrium fell over the m steps, distances within [1e-12, 1e3];
    minus `penalty` where the game diverged, which ends the episode. An episode ends after `steps` steps of the players; a new
    game begins in the same environment step.

    infos, after a step and of what was before any new game: ``log_distance`` [N], ``evaluations`` [N] of both players' slopes
    since the game began (an extragradient step takes two), ``diverged`` [N], ``family`` [N], ``final_obs`` [N, len(SEEN)] and
    ``_final_obs`` [N], which rows of it were followed by a new game.

    Args:
        num_envs: games N at once.
        steps: of the players in one game, a multiple of `each`.
        each: m, steps of the players in one environment step, at least 2.
        distribution: "paper" or "wide" (see `minimax_games`).
        families: that are drawn, with equal probabilities.
        reach: most decades by which a rate changes in one environment step.
        start_rate: of both players.
        rate_range: within which rates are kept.
        penalty: for a game that diverged.

    Raises:
        ValueError: an argument outside of what is said here.
    """

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.SAME_STEP, "render_modes": []}  # noqa: RUF012

    def __init__(
        self,
        num_envs: int = 256,
        *,
        steps: int = 100,
        each: int = 10,
        distribution: str = "wide",
        families: tuple[str, ...] = FAMILIES,
        reach: float = 1.0,
        start_rate: float = 1e-2,
        rate_range: tuple[float, float] = (1e-4, 1e2),
        penalty: float = 3.0,
    ) -> None:
        if num_envs < 1:
            raise ValueError(f"[rl2] expected num_envs >= 1, got {num_envs}")
        if each < 2 or steps < each or steps % each:
            raise ValueError(f"[rl2] expected steps a multiple of each >= 2, got steps {steps}, each {each}")
        if not reach > 0:
            raise ValueError(f"[rl2] expected reach > 0, got {reach}")
        if not 0 < rate_range[0] <= start_rate <= rate_range[1]:
            raise ValueError(f"[rl2] expected start_rate within {rate_range}, got {start_rate}")
        draw(1, np.random.default_rng(0), distribution=distribution, families=families)  # says what is wrong
        self.num_envs, self.steps, self.each = num_envs, steps, each
        self.distribution, self.families = distribution, families
        self.reach, self.penalty = reach, penalty
        self._start_rate = np.log10(start_rate)
        self._rate_range = np.log10(rate_range)
        self.trial_steps = steps // each
        self.single_observation_space = spaces.Box(-LIMIT, LIMIT, (len(SEEN),), np.float32)
        self.single_action_space = spaces.Dict(
            {"kind": spaces.Discrete(len(KINDS)), "rates": spaces.Box(-1.0, 1.0, (2,), np.float32)}
        )
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """New games everywhere. With the same seed, the same games and, for the same actions, the same future to the bit."""
        super().reset(seed=seed)
        self.players = Players(*self._draw(self.num_envs))
        self.log_rates = np.full((2, self.num_envs), self._start_rate)
        self.taken = np.zeros(self.num_envs, np.int64)
        self.evaluations = np.zeros(self.num_envs, np.int64)
        self._log_distance = log_distance(self.players.games, self.players.x, self.players.y)
        observation = self._first(np.arange(self.num_envs))
        return observation, {"log_distance": self._log_distance, "family": self.players.games.family}

    def step(
        self, actions: dict[str, Any]
    ) -> tuple[NDArray[np.float32], Array, NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """One environment step. See the class.

        Raises:
            ValueError: actions that are not of the action space.
        """
        kind, change = np.asarray(actions["kind"]), np.asarray(actions["rates"], np.float64)
        wanted = (self.num_envs,), (self.num_envs, 2)
        if (kind.shape, change.shape) != wanted or not ((kind >= 0) & (kind < len(KINDS))).all():
            raise ValueError(
                f"[rl2] expected kind {wanted[0]} below {len(KINDS)} and rates {wanted[1]}, got {kind.shape} and {change.shape}"
            )
        if not (np.abs(change) <= 1).all():
            raise ValueError("[rl2] expected rates within [-1, 1], got some outside or nan")
        self.log_rates = np.clip(self.log_rates + self.reach * change.T, *self._rate_range)
        with np.errstate(over="ignore", invalid="ignore"):  # a game that diverges
            trace = self._play(kind)
            seen = self._see(*trace)
        players = self.players
        after = log_distance(players.games, players.x, players.y)
        diverged = after >= np.log10(BOUND)
        reward = self._log_distance - after - self.penalty * diverged
        terminated = diverged | (self.taken >= self.steps)
        self._log_distance = after
        infos = {
            "log_distance": after.copy(),
            "evaluations": self.evaluations.copy(),
            "diverged": diverged,
            "family": players.games.family,
        }
        rows = np.flatnonzero(terminated)
        if len(rows):
            infos |= {"final_obs": seen.copy(), "_final_obs": terminated}
            players.begin(rows, *self._draw(len(rows)))
            self.log_rates[:, rows] = self._start_rate
            self.taken[rows] = self.evaluations[rows] = 0
            self._log_distance[rows] = log_distance(
                players.games.take(rows), players.x[rows], players.y[rows]
            )
            seen[rows] = self._first(rows)
        return seen, reward, terminated, np.zeros(self.num_envs, bool), infos

    def _draw(self, count: int) -> tuple[Games, Array, Array]:
        return draw(count, self.np_random, distribution=self.distribution, families=self.families)

    def _play(self, kind: NDArray[np.int64]) -> tuple[Array, Array, Array]:
        """m steps of all players: slopes seen and places where they were, [m, 2, N, d], f at the first and last [2, N]."""
        players, rates = self.players, 10.0**self.log_rates
        ahead = players.games.take(np.flatnonzero(kind == EXTRAGRADIENT))
        slopes, places, values = [], [], []
        for _ in range(self.each):
            places.append(np.stack([players.x, players.y]))
            players.step(kind, rates[0], rates[1], ahead)
            slopes.append(np.stack([players.seen_x, players.seen_y]))
        for x, y in (places[0], places[-1]):
            values.append(players.games.value(x, y))
        self.taken += self.each
        self.evaluations += self.each * np.where(kind == EXTRAGRADIENT, 2, 1)
        return np.stack(slopes), np.stack(places), np.stack(values)

    def _see(self, slopes: Array, places: Array, values: Array) -> NDArray[np.float32]:
        """Observations [N, len(SEEN)] of what `_play` returned."""
        rates = 10.0**self.log_rates
        size = np.sqrt((slopes**2).sum(-1))  # [m, 2, N]
        log_size = np.log10(size + TINY)
        change, move = np.diff(slopes, axis=0), np.diff(places, axis=0)
        fall = log_size[:-1] - log_size[1:]
        inner = (slopes[1:] * slopes[:-1]).sum(-1)
        turn = 1 - _ratio(inner, size[1:] * size[:-1])
        turn_both = 1 - _ratio(inner.sum(1), np.sqrt((size[1:] ** 2).sum(1) * (size[:-1] ** 2).sum(1)))
        changed, moved = (change**2).sum(-1), (move**2).sum(-1)  # [m - 1, 2, N]
        bent = _ratio((change * move).sum(-1).mean(0), moved.mean(0)) * rates  # [2, N]
        stiff = 0.5 * np.log10((changed.mean(0) + TINY) / (moved.mean(0) + TINY)) + self.log_rates
        # Each player measured in steps of its own rate, so that the number says how far both are from what is stable.
        both = (changed * rates).mean(0).sum(0), (moved / rates).mean(0).sum(0)
        stiff_both = 0.5 * np.log10((both[0] + TINY) / (both[1] + TINY))
        travel = places[-1] - places[0]
        far = np.sqrt((travel**2).sum(-1) * (slopes**2).sum(-1).mean(0)).sum(0)
        gain = _ratio(values[1] - values[0], far)
        columns = [
            *self.log_rates,
            *(log_size[-1] / 3),
            *(2 * fall.mean(0)),
            *(2 * fall[-1]),
            *turn.mean(0),
            turn_both.mean(0),
            *bent,
            *stiff,
            stiff_both,
            gain,
            np.log10(self.taken),
        ]
        seen = np.nan_to_num(np.stack(columns, 1), nan=0.0, posinf=LIMIT, neginf=-LIMIT)
        clipped: NDArray[np.float32] = np.clip(seen, -LIMIT, LIMIT).astype(np.float32)
        return clipped

    def _first(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Observations before any slope was evaluated: the rates and otherwise zeros."""
        seen = np.zeros((len(rows), len(SEEN)), np.float32)
        seen[:, :2] = self.log_rates[:, rows].T
        return seen


def _ratio(upper: Array, lower: Array) -> Array:
    """upper / lower, and 0 where the lower one is 0 or too small for that."""
    return np.divide(upper, lower, out=np.zeros_like(upper), where=np.abs(lower) > TINY)
