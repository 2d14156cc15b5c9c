"""What a learned controller of minimax games has to beat: methods with two constant rates, tuned on games of their own.

Every kind of step (`minimax_games.KINDS`) is tried with a grid of rates of x and of y on validation games. The winner is the pair
with the smallest mean of log10 of the distance to the equilibrium; where it lies at the edge of the grid, the grid grows; around
it a finer grid is tried. Each family and the mixture of all, and each number of steps, has its own winner.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..environments.minimax import BOUND, log_distance
from ..environments.minimax_games import FAMILIES, KINDS, MATRIX, Games, Players

__all__ = ["Grid", "Tuned", "constant"]

Array = NDArray[np.float64]

CHECKED = 10  # steps between looks at which game has diverged
FINE = 16  # points of the finer grid in a decade
COARSE = 4  # of them from one point of the coarse grid to the next
GROWTH = 2 * COARSE  # by which a grid grows at an edge where the winner lies
LOWEST, HIGHEST = -4 * FINE, 2 * FINE  # where it stops growing: the rates that a controller may choose


@dataclass(frozen=True)
class Tuned:
    """A tuned baseline.

    Attributes:
        kind: of KINDS.
        rate_x: of the player who makes f small.
        rate_y: of the other.
        mean: of log10 of the distance on the validation games.
    """

    kind: str
    rate_x: float
    rate_y: float
    mean: float


def constant(
    games: Games, x: Array, y: Array, kind: str, rate_x: Array, rate_y: Array, marks: tuple[int, ...]
) -> Array:
    """log10 of the distances [len(marks), N] after so many steps of one kind, from the starts x and y [N, d].

    Args:
        games: N of them.
        x: [N, d].
        y: [N, d].
        kind: of KINDS.
        rate_x: [N].
        rate_y: [N].
        marks: numbers of steps, multiples of 10 that rise. Every 10 steps it is seen which games have diverged, as in the
            environment; they stay so.
    """
    if any(mark % CHECKED for mark in marks) or list(marks) != sorted(set(marks)):
        raise ValueError(f"[rl2] expected marks that rise and are multiples of {CHECKED}, got {marks}")
    result = np.full((len(marks), len(games)), np.log10(BOUND))
    alive = np.arange(len(games))
    players = Players(games, x, y)
    number = KINDS.index(kind)
    for step in range(0, marks[-1], CHECKED):
        kinds = np.full(len(alive), number)
        with np.errstate(over="ignore", invalid="ignore"):
            for _ in range(CHECKED):
                players.step(kinds, rate_x[alive], rate_y[alive], players.games)
        now = log_distance(players.games, players.x, players.y)
        if step + CHECKED in marks:
            result[marks.index(step + CHECKED), alive] = now
        kept = now < np.log10(BOUND)
        if not kept.all():
            players, alive = players.take(kept), alive[kept]
        if not len(alive):
            break
    return result


class Grid:
    """The means of one kind on validation games, for every pair of rates that was tried.

    Args:
        games: for validation, of all families.
        x: [N, d], their starts.
        y: [N, d].
        kind: of KINDS.
        marks: numbers of steps after which distances are kept.
    """

    def __init__(self, games: Games, x: Array, y: Array, kind: str, marks: tuple[int, ...]) -> None:
        self.kind, self.marks = kind, marks
        self._parts: dict[str, tuple[Games, Array, Array]] = {}
        for number, name in enumerate(FAMILIES):
            rows = np.flatnonzero(games.family == number)
            if len(rows):
                own = (
                    slice(None) if number == MATRIX else slice(1)
                )  # a family of one dimension needs no other
                part = games.take(rows).narrow(own)
                self._parts[name] = part, x[rows, own], y[rows, own]
        self._tried: dict[str, dict[tuple[int, int], Array]] = {name: {} for name in self._parts}

    def best(self, family: str, mark: int) -> Tuned:
        """The winner for a family, or for the mixture of all ("mixture"), after so many steps."""
        names = tuple(self._parts) if family == "mixture" else (family,)
        low = np.array([-3 * FINE, -3 * FINE])
        high = np.array([1 * FINE, 1 * FINE])
        while True:
            rows, columns = (range(low[i], high[i] + 1, COARSE) for i in range(2))
            winner = self._winner(names, [(i, j) for i in rows for j in columns], mark)
            at_low = (np.array(winner) <= low) & (low > LOWEST)
            at_high = (np.array(winner) >= high) & (high < HIGHEST)
            if not (at_low | at_high).any():
                break
            low, high = low - GROWTH * at_low, high + GROWTH * at_high
        around = range(1 - COARSE, COARSE)
        fine = [(winner[0] + i, winner[1] + j) for i in around for j in around]
        winner = self._winner(names, fine, mark)
        mean = self._mean(names, winner, mark)
        return Tuned(self.kind, 10.0 ** (winner[0] / FINE), 10.0 ** (winner[1] / FINE), mean)

    def _winner(self, names: tuple[str, ...], points: list[tuple[int, int]], mark: int) -> tuple[int, int]:
        for name in names:
            self._try(name, [point for point in points if point not in self._tried[name]])
        return min(points, key=lambda point: self._mean(names, point, mark))

    def _mean(self, names: tuple[str, ...], point: tuple[int, int], mark: int) -> float:
        place = self.marks.index(mark)
        count = sum(len(self._parts[name][0]) for name in names)
        return float(sum(self._tried[name][point][place] for name in names) / count)

    def _try(self, name: str, points: list[tuple[int, int]]) -> None:
        """Play the family's games with these rates, all at once, and keep the sums over games."""
        if not points:
            return
        games, x, y = self._parts[name]
        count = len(games)
        rows = np.tile(np.arange(count), len(points))
        rates = 10.0 ** (np.repeat(np.array(points), count, axis=0) / FINE)
        found = constant(games.take(rows), x[rows], y[rows], self.kind, rates[:, 0], rates[:, 1], self.marks)
        sums = found.reshape(len(self.marks), len(points), count).sum(-1)
        for place, point in enumerate(points):
            self._tried[name][point] = sums[:, place]
