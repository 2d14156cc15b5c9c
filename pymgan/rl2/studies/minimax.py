"""Whether a learned controller of minimax games beats the best tuned method: training, tuning, held-out games, one table.

Games of the test, of the baselines' validation and of training have seeds that never meet. Distances below 1e-12 count as 1e-12,
for all alike; a game that diverged counts as 1e3 ever after.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..baselines.minimax import Grid, Tuned, constant
from ..environments.minimax import BOUND, FLOOR, MinimaxGames
from ..environments.minimax_games import FAMILIES, KINDS, Games, draw
from ..learn import Update, learn
from ..policy import Policy
from ..ppo import PPO
from ..rollout import Player

__all__ = ["LEARNING", "TRAINING", "UPDATES", "study", "table"]

Array = NDArray[np.float64]

MARKS = (100, 1000)  # after so many steps, or evaluations of the slopes, distances are compared
MEASURES = ("steps", "evaluations")
# Training takes seeds below 2^31 (see `Learner`).
VALIDATION_SEED, TEST_SEED = 2**32 + 1, 2**32 + 2
NORMAL = 1.959964  # two-sided 95 % of the normal distribution

# The distance after 200 steps is what a controller is trained for; it plays 1,000 as well, since it sees no end coming.
TRAINING: dict[str, Any] = {"num_envs": 512, "steps": 200, "each": 10}
UPDATES = 600
LEARNING = PPO(discount=0.97, entropy=0.02)


def study(
    *,
    distribution: str = "wide",
    held_out: str | None = None,
    problems: int = 2048,
    validation: int = 1024,
    updates: int = UPDATES,
    hidden: int = 64,
    seed: int = 0,
    controllers: int = 1,
    policies: Sequence[Policy] | None = None,
    ppo: PPO = LEARNING,
    callback: Callable[[Update], None] | None = None,
    say: Callable[[str], None] | None = None,
    **training: Any,
) -> dict[str, Any]:
    """Train controllers, tune the baselines, and compare them on held-out games.

    Args:
        distribution: of the games of training.
        held_out: of the games on which the baselines are tuned and all are compared; by default the same.
        problems: games on which all are compared.
        validation: games on which baselines are tuned.
        updates: of each training.
        hidden: of the policy.
        seed: of the first controller.
        controllers: trained and tested one by one with seeds of their own; a game's distance is the mean of theirs.
        policies: trained before with these settings, to be compared instead of training.
        ppo: how to learn.
        callback: called after every update.
        say: takes a line when the tuning of a kind begins.
        training: arguments of `MinimaxGames` for training; `each`, `reach`, `start_rate` and `rate_range` hold in the test too.

    Returns:
        What `table` prints and more, made of what JSON holds: settings, baselines with their rates, and a row for each measure,
        mark and family with the means and half the widths of their 95 % intervals.
    """
    started = time.perf_counter()
    settings = {**TRAINING, **training, "distribution": distribution}
    seeds = range(seed, seed + controllers)
    if policies is None:
        how: dict[str, Any] = {"updates": updates, "hidden": hidden, "callback": callback}
        policies = [learn(MinimaxGames(**settings), ppo, seed=own, **how) for own in seeds]
    trained = time.perf_counter() - started
    rng = np.random.default_rng(VALIDATION_SEED)
    held_out = held_out or distribution
    tuned = _tune(draw(validation, rng, distribution=held_out), say or (lambda line: None))
    watched = _Watched(**{**settings, "num_envs": problems, "steps": max(MARKS), "distribution": held_out})
    played = [watched.follow(policy, TEST_SEED) for policy in policies]
    watched.reset(seed=TEST_SEED)
    start = watched.players.games, watched.players.x.copy(), watched.players.y.copy()
    rows = []
    for measure in MEASURES:
        for mark in MARKS:
            reached = np.stack([each[measure, mark] for each in played])
            rows += _rows(measure, mark, reached, tuned, start)
    return {
        "training": {**settings, "updates": updates, "hidden": hidden, **vars(ppo)},
        "held_out": held_out,
        "controllers": len(policies),
        "seed": seed,
        "validation_games": validation,
        "problems": problems,
        "floor": FLOOR,
        "bound": BOUND,
        "baselines": [
            {"family": family, "measure": measure, "mark": mark, **vars(winner)}
            for (family, measure, mark), winners in tuned.items()
            for winner in winners
        ],
        "rows": rows,
        "train_s": round(trained, 1),
        "wall_s": round(time.perf_counter() - started, 1),
    }


def table(result: dict[str, Any]) -> str:
    """The comparison as text: mean log10 of the distance to the equilibrium on the held-out games, with 95 % intervals."""
    games, held_out, count = result["problems"], result["held_out"], result["controllers"]
    lines = [
        f'{games} held-out games, coefficients "{held_out}"; {count} controller(s), trained on'
        f' "{result["training"]["distribution"]}".',
        "Mean of log10 of the distance to the equilibrium, with 95 % intervals over games; lower is better.",
        f"Distances below {result['floor']:g} count as that, diverged games as {result['bound']:g}.",
        "After a difference: - the controller is better with 95 %, + it is worse.",
    ]
    for measure in MEASURES:
        for mark in MARKS:
            unit = "steps" if measure == "steps" else "evaluations of the slopes"
            lines += [
                "",
                f"after {mark} {unit}",
                f"{'family':<16}{'controller':>16}{'best for the mixture':>34}{'difference':>18}"
                f"{'best for the family':>34}{'difference':>18}",
            ]
            for row in result["rows"]:
                if (row["measure"], row["mark"]) == (measure, mark):
                    lines.append(_line(row))
    return "\n".join(lines)


class _Watched(MinimaxGames):
    """An environment that keeps what its steps say in `infos`."""

    def reset(self, **kw: Any) -> Any:
        self.said: list[dict[str, Any]] = []
        return super().reset(**kw)

    def step(self, actions: dict[str, Any]) -> Any:
        result = super().step(actions)
        self.said.append(result[-1])
        return result

    def follow(self, policy: Policy, seed: int) -> dict[tuple[str, int], Array]:
        """log10 of the distances [N] of the seed's games under the policy's likeliest actions, by measure and mark."""
        Player(self, policy, seed=seed).play(self.trial_steps, greedy=True)
        diverged = np.logical_or.accumulate(np.stack([each["diverged"] for each in self.said]))
        distances = np.stack([each["log_distance"] for each in self.said])
        distances[diverged] = np.log10(BOUND)
        # A game that has diverged takes no further evaluations, so its last one counts.
        evaluations = np.maximum.accumulate(np.stack([each["evaluations"] for each in self.said]))
        found: dict[tuple[str, int], Array] = {}
        for mark in MARKS:
            found["steps", mark] = distances[mark // self.each - 1]
            within = ((evaluations <= mark).sum(0) - 1).clip(
                0
            )  # the last look before the evaluations were used up
            found["evaluations", mark] = distances[within, np.arange(self.num_envs)]
        return found


def _tune(
    start: tuple[Games, Array, Array], say: Callable[[str], None]
) -> dict[tuple[str, str, int], list[Tuned]]:
    """The winners of all kinds, best first, by family (or "mixture"), measure and mark."""
    halves = tuple(sorted({mark // 2 for mark in MARKS} | set(MARKS)))
    tuned: dict[tuple[str, str, int], list[Tuned]] = {}
    for kind in KINDS:
        say(f"tuning {kind}")
        grid = Grid(*start, kind, halves)
        for measure in MEASURES:
            for mark in MARKS:
                for family in ("mixture", *FAMILIES):
                    winner = grid.best(family, _steps(kind, measure, mark))
                    tuned.setdefault((family, measure, mark), []).append(winner)
    return {place: sorted(winners, key=lambda each: each.mean) for place, winners in tuned.items()}


def _steps(kind: str, measure: str, mark: int) -> int:
    """Steps that a kind takes within the mark."""
    return mark // 2 if measure == "evaluations" and kind == "extragradient" else mark


def _rows(
    measure: str,
    mark: int,
    controllers: Array,
    tuned: dict[tuple[str, str, int], list[Tuned]],
    start: tuple[Games, Array, Array],
) -> list[dict[str, Any]]:
    """A row for each family and one for the mixture, whose "best for the family" plays each game with its family's winner."""
    controller = controllers.mean(0)
    family = start[0].family
    general = tuned["mixture", measure, mark][0]
    by_general = _play(general, measure, mark, *start)
    by_own = np.empty_like(by_general)
    for number, name in enumerate(FAMILIES):
        rows = np.flatnonzero(family == number)
        part = start[0].take(rows), start[1][rows], start[2][rows]
        by_own[rows] = _play(tuned[name, measure, mark][0], measure, mark, *part)
    result = []
    for name in (*FAMILIES, "mixture"):
        mixed = name == "mixture"
        rows = np.arange(len(family)) if mixed else np.flatnonzero(family == FAMILIES.index(name))
        result.append(
            {
                "measure": measure,
                "mark": mark,
                "family": name,
                "games": len(rows),
                "controller": _interval(controller[rows]),
                "by_seed": [float(each[rows].mean()) for each in controllers],
                "mixture_kind": general.kind,
                "mixture_best": _interval(by_general[rows]),
                "mixture_difference": _interval((controller - by_general)[rows]),
                "family_kind": "each its own" if mixed else tuned[name, measure, mark][0].kind,
                "family_best": _interval(by_own[rows]),
                "family_difference": _interval((controller - by_own)[rows]),
            }
        )
    return result


def _play(winner: Tuned, measure: str, mark: int, games: Games, x: Array, y: Array) -> Array:
    rates = np.full(len(games), winner.rate_x), np.full(len(games), winner.rate_y)
    far: Array = constant(games, x, y, winner.kind, *rates, (_steps(winner.kind, measure, mark),))[0]
    return far


def _interval(values: Array) -> dict[str, float]:
    """Mean and half the width of its 95 % interval."""
    return {
        "mean": float(values.mean()),
        "half": float(NORMAL * values.std(ddof=1) / np.sqrt(len(values))),
    }


def _line(row: dict[str, Any]) -> str:
    def text(part: dict[str, float]) -> str:
        return f"{part['mean']:.2f} ± {part['half']:.2f}"

    def gap(part: dict[str, float]) -> str:
        sure = "-" if part["mean"] + part["half"] < 0 else "+" if part["mean"] - part["half"] > 0 else " "
        return f"{text(part)} {sure}"

    return (
        f"{row['family']:<16}{text(row['controller']):>16}"
        f"{row['mixture_kind'] + ' ' + text(row['mixture_best']):>34}{gap(row['mixture_difference']):>18}"
        f"{row['family_kind'] + ' ' + text(row['family_best']):>34}{gap(row['family_difference']):>18}"
    )
