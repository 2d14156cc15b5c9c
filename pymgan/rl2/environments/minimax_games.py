"""Two-player games with known equilibria, in batches, and the first-order methods that play them.

The four families are the test problems of Twin-L2O (Shen, Chen, Heaton, Chen, Liu, Yin, Wang 2021, "Learning a minimax optimizer:
a pilot study", ICLR): one player makes f(x, y) small by x, the other large by y.

============== ==================================== ================================================
family         f(x, y)                              equilibria
============== ==================================== ================================================
saddle         a x² - b y²                          (0, 0)
rotated saddle a x² - b y² + 2 x y                  (0, 0)
seesaw         -b y sin(a π x)                      (k / a, 0) for every whole k
matrix         xᵀ A y, x and y of R⁵, no bounds     the null spaces of Aᵀ and A
============== ==================================== ================================================

Formulas, a, b ~ U[0.9, 1] and starts ~ U[-0.5, 0.5] are those of the authors' code (github.com/VITA-Group/Open-L2O,
Model_Free_L2O/L2O-Minimax); it holds no code for the matrix game, but its data: each entry of the 5 x 5 matrix is drawn from
U[0.5, 1] with probability one half and is zero otherwise. That is the distribution "paper". In "wide" a and b are log-uniform
over [0.1, 10], and the matrix is that of the paper times such a number, so that no one rate suits all games.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["DISTRIBUTIONS", "FAMILIES", "KINDS", "Games", "Players", "draw"]

Array = NDArray[np.float64]
Index = NDArray[np.int64]

FAMILIES = ("saddle", "rotated saddle", "seesaw", "matrix")
DISTRIBUTIONS = ("paper", "wide")
KINDS = ("simultaneous", "alternating", "optimistic", "extragradient")
SEESAW, MATRIX = FAMILIES.index("seesaw"), FAMILIES.index("matrix")
ALTERNATING, OPTIMISTIC, EXTRAGRADIENT = 1, 2, 3
MATRIX_SIDE = 5
RANK_TOLERANCE = 1e-9  # singular values below this part of the largest one are zeros that rounding hides


class Games:
    """N games over x and y of R^d; a family of one dimension uses the first coordinate and leaves the others at 0.

    Args:
        family: [N], index into FAMILIES.
        a: [N]; not used by a matrix game.
        b: [N]; not used by a matrix game.
        coupling: [N, d, d], the matrix between x and y: of a matrix game A, of a rotated saddle 2 in the first place, else 0.
        centre_x: [N, d]; f takes x - centre_x, and the equilibria move with it. Zero unless given.
        centre_y: [N, d].
        basis_x: [N, d, d], rows that measure the distance of x - centre_x to an equilibrium; what they cannot see does not count.
            Computed unless given, for a matrix game from its singular vectors.
        basis_y: [N, d, d].
    """

    def __init__(
        self,
        family: Index,
        a: Array,
        b: Array,
        coupling: Array,
        centre_x: Array | None = None,
        centre_y: Array | None = None,
        basis_x: Array | None = None,
        basis_y: Array | None = None,
    ) -> None:
        zero = np.zeros(coupling.shape[:2])
        self.family, self.a, self.b, self.coupling = family, a, b, coupling
        self.centre_x = zero if centre_x is None else centre_x
        self.centre_y = zero if centre_y is None else centre_y
        if basis_x is None or basis_y is None:
            basis_x, basis_y = _bases(coupling, np.flatnonzero(family == MATRIX))
        self.basis_x, self.basis_y = basis_x, basis_y
        quadratic = (family != SEESAW) & (family != MATRIX)
        self._curvature_x = np.where(quadratic, 2 * a, 0.0)[:, None]
        self._curvature_y = np.where(quadratic, 2 * b, 0.0)[:, None]
        self._seesaws = np.flatnonzero(family == SEESAW)
        self._frequency, self._height = np.pi * a[self._seesaws], b[self._seesaws]

    def __len__(self) -> int:
        return len(self.family)

    @property
    def side(self) -> int:
        """Coordinates d of each player."""
        return int(self.coupling.shape[-1])

    def take(self, rows: Any) -> Games:
        """The games at these rows, in this order."""
        return Games(*(field[rows] for field in self.fields()))

    def narrow(self, coordinates: slice) -> Games:
        """The same games with fewer coordinates."""
        family, a, b, coupling, *more = self.fields()
        centre_x, centre_y, basis_x, basis_y = (field[:, coordinates] for field in more)
        coupling = coupling[:, coordinates, coordinates]
        basis_x, basis_y = basis_x[..., coordinates], basis_y[..., coordinates]
        return Games(family, a, b, coupling, centre_x, centre_y, basis_x, basis_y)

    def fields(self) -> tuple[Any, ...]:
        """The arrays of which `Games` is made, in its order."""
        centres, bases = (self.centre_x, self.centre_y), (self.basis_x, self.basis_y)
        return self.family, self.a, self.b, self.coupling, *centres, *bases

    def value(self, x: Array, y: Array) -> Array:
        """f, [N], of x and y [N, d]."""
        x, y = x - self.centre_x, y - self.centre_y
        value: Array = 0.5 * (self._curvature_x * x * x - self._curvature_y * y * y).sum(-1) + (
            x * np.einsum("nij,nj->ni", self.coupling, y)
        ).sum(-1)
        value[self._seesaws] = (
            -self._height * y[self._seesaws, 0] * np.sin(self._frequency * x[self._seesaws, 0])
        )
        return value

    def slope_x(self, x: Array, y: Array) -> Array:
        """df/dx, [N, d]."""
        x, y = x - self.centre_x, y - self.centre_y
        slope: Array = self._curvature_x * x + np.einsum("nij,nj->ni", self.coupling, y)
        cosine = np.cos(self._frequency * x[self._seesaws, 0])
        slope[self._seesaws, 0] = -self._height * self._frequency * y[self._seesaws, 0] * cosine
        return slope

    def slope_y(self, x: Array, y: Array) -> Array:
        """df/dy, [N, d]."""
        x, y = x - self.centre_x, y - self.centre_y
        slope: Array = np.einsum("nij,ni->nj", self.coupling, x) - self._curvature_y * y
        slope[self._seesaws, 0] = -self._height * np.sin(self._frequency * x[self._seesaws, 0])
        return slope

    def distance(self, x: Array, y: Array) -> Array:
        """Euclidean distance [N] to the nearest equilibrium; nan where x or y is not finite."""
        x, y = x - self.centre_x, y - self.centre_y
        seesaws = self._seesaws
        x[seesaws, 0] -= np.round(x[seesaws, 0] * self.a[seesaws]) / self.a[seesaws]
        rows = np.flatnonzero(self.family == MATRIX)
        x[rows] = np.einsum("nij,nj->ni", self.basis_x[rows], x[rows])
        y[rows] = np.einsum("nij,nj->ni", self.basis_y[rows], y[rows])
        distance: Array = np.sqrt((x * x).sum(-1) + (y * y).sum(-1))
        return distance


def draw(
    count: int, rng: np.random.Generator, *, distribution: str = "wide", families: tuple[str, ...] = FAMILIES
) -> tuple[Games, Array, Array]:
    """Games and where their players start: (games, x [count, d], y [count, d]).

    Each game's family is drawn from `families` with equal probabilities. d is 5 if matrix games are among them and 1 otherwise.

    Raises:
        ValueError: an unknown distribution or family, or none.
    """
    _check(distribution, families)
    side = MATRIX_SIDE if "matrix" in families else 1
    family = np.array([FAMILIES.index(name) for name in families])[rng.integers(len(families), size=count)]
    if distribution == "paper":
        a, b = rng.uniform(0.9, 1.0, (2, count))
        scale = np.ones(count)
    else:
        a, b, scale = 10.0 ** rng.uniform(-1.0, 1.0, (3, count))
    matrix = family == MATRIX
    coupling = np.zeros((count, side, side))
    coupling[family == FAMILIES.index("rotated saddle"), 0, 0] = 2.0
    if side > 1:
        drawn = rng.uniform(0.5, 1.0, (count, side, side)) * rng.integers(2, size=(count, side, side))
        coupling[matrix] = (scale[:, None, None] * drawn)[matrix]
    start = rng.uniform(-0.5, 0.5, (2, count, side))
    start[:, ~matrix, 1:] = 0.0
    return Games(family, a, b, coupling), start[0], start[1]


def _bases(coupling: Array, matrices: Index) -> tuple[Array, Array]:
    """Rows that measure distances, [N, d, d] of x and of y: everything, or for a matrix game all but the null spaces."""
    count, side = coupling.shape[:2]
    basis_x, basis_y = np.tile(np.eye(side), (2, count, 1, 1))
    left, sizes, right = np.linalg.svd(coupling[matrices])
    kept = (sizes > RANK_TOLERANCE * sizes[:, :1])[:, :, None]
    basis_x[matrices], basis_y[matrices] = left.transpose(0, 2, 1) * kept, right * kept
    return basis_x, basis_y


def _check(distribution: str, families: tuple[str, ...]) -> None:
    if distribution not in DISTRIBUTIONS:
        raise ValueError(f"[rl2] expected a distribution of {DISTRIBUTIONS}, got {distribution!r}")
    if not families or not set(families) <= set(FAMILIES):
        raise ValueError(f"[rl2] expected families of {FAMILIES}, got {families!r}")


class Players:
    """Where the players of N games are, and the steps that they take.

    A step of each kind, with F = (df/dx, -df/dy) and its last value F':

    - simultaneous gradient descent-ascent: z - rate F(z);
    - alternating: x moves first, y then takes the slope at the new x;
    - optimistic (Popov 1980; Daskalakis et al. 2018, "Training GANs with optimism"): z - rate (2 F(z) - F'), where F' is F
      before the first step;
    - extragradient (Korpelevich 1976): z - rate F(z - rate F(z)), which evaluates F twice.

    Attributes:
        games: that they play.
        x: [N, d].
        y: [N, d].
        seen_x: [N, d], the last slope df/dx that was evaluated where the players stood.
        seen_y: [N, d], and df/dy.
        fresh: bool [N], True before the first step.
    """

    def __init__(self, games: Games, x: Array, y: Array) -> None:
        self.games, self.x, self.y = games, x.copy(), y.copy()
        self.seen_x, self.seen_y = np.zeros_like(x), np.zeros_like(y)
        self.fresh = np.ones(len(games), bool)

    def take(self, rows: Any) -> Players:
        """The players of the games at these rows, where they are."""
        taken = Players(self.games.take(rows), self.x[rows], self.y[rows])
        taken.seen_x, taken.seen_y = self.seen_x[rows], self.seen_y[rows]
        taken.fresh = self.fresh[rows]
        return taken

    def begin(self, rows: Index, games: Games, x: Array, y: Array) -> None:
        """Other games, with their starts, at these rows."""
        fields = []
        for old, new in zip(self.games.fields(), games.fields(), strict=True):
            mixed = old.copy()
            mixed[rows] = new
            fields.append(mixed)
        self.games = Games(*fields)
        self.x[rows], self.y[rows], self.fresh[rows] = x, y, True
        self.seen_x[rows] = self.seen_y[rows] = 0.0

    def step(self, kind: Index, rate_x: Array, rate_y: Array, lookahead: Games | None = None) -> None:
        """One step of every game.

        Args:
            kind: [N], index into KINDS.
            rate_x: [N].
            rate_y: [N].
            lookahead: the games whose kind is extragradient, `games.take(numpy.flatnonzero(kind == 3))`, for callers
                that take many steps of the same kinds.
        """
        rate_x, rate_y = rate_x[:, None], rate_y[:, None]
        x, y = self.x, self.y
        slope_x = self.games.slope_x(x, y)
        moved = np.where((kind == ALTERNATING)[:, None], x - rate_x * slope_x, x)
        slope_y = self.games.slope_y(moved, y)
        optimistic = ((kind == OPTIMISTIC) & ~self.fresh)[:, None]
        way_x = np.where(optimistic, 2 * slope_x - self.seen_x, slope_x)
        way_y = np.where(optimistic, 2 * slope_y - self.seen_y, slope_y)
        rows = np.flatnonzero(kind == EXTRAGRADIENT)
        if len(rows):
            games = self.games.take(rows) if lookahead is None else lookahead
            half_x = x[rows] - rate_x[rows] * slope_x[rows]
            half_y = y[rows] + rate_y[rows] * slope_y[rows]
            way_x[rows], way_y[rows] = games.slope_x(half_x, half_y), games.slope_y(half_x, half_y)
        self.x, self.y = x - rate_x * way_x, y + rate_y * way_y
        self.seen_x, self.seen_y, self.fresh = slope_x, slope_y, np.zeros_like(self.fresh)
