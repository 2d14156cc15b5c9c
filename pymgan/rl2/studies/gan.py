"""A controller of GAN training against schedules that look at nothing, on tasks of classes that none of them has seen."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..comparison import STEP, WIDEST, Bench, Outcome, best_schedule, to_json
from ..comparison import table as outcomes_table
from ..controller import RL2, Controller
from ..learn import Update
from ..steering import SHAPES, FixedSchedule, RandomSteering

if TYPE_CHECKING:
    from ...contract import Engine
    from ...tasks import TaskDistribution

__all__ = ["AGAINST", "Setting", "compare", "grid_winners", "study", "table"]

VALIDATION_TASKS, TEST_TASKS = 40, 120
VALIDATION, TEST = 101, 102  # streams of random numbers, as `pymgan.loop` has 0 to 2
AGAINST = "best constant"
BLIND = ("time_left", "begun")  # what "the same policy fed only the step counter" observes


@dataclass(frozen=True)
class Setting:
    """What is compared on.

    Attributes:
        engine: compiled with the recipe's `inner_loop()`.
        tasks: a whole distribution.
        phi: [P], where every adaptation starts.
        recipe: of the controller; its steps, controls and spread are those of all.
        shots, queries: of a task.
        seed: of tasks and noise.
        test_tasks: how many.
        wide: judge where rates begin anywhere, too, if they do so in training (`RL2.spread`); else they begin at the reference.
    """

    engine: Engine
    tasks: TaskDistribution
    phi: Tensor
    recipe: RL2
    shots: int = 8
    queries: int = 32
    seed: int = 0
    test_tasks: int = TEST_TASKS
    wide: bool = True

    @property
    def spread(self) -> float:
        """Of the rates that validation and test tasks begin with."""
        return self.recipe.spread if self.wide else 0.0

    def bench(self, split: str) -> Bench:
        """Tasks of the split "validation" or "test", and the offsets that their rates begin at."""
        stream, count = (VALIDATION, VALIDATION_TASKS) if split == "validation" else (TEST, self.test_tasks)
        random = np.random.default_rng([self.seed, stream])
        batch = self.tasks.split(split).sample(count, self.shots, self.queries, random)
        offset = torch.from_numpy(random.uniform(-self.spread, self.spread, (count, 2)))
        return Bench(
            self.engine, self.recipe.controls, self.recipe.steps, self.phi, batch, offset, seed=self.seed
        )

    def blind(self) -> RL2:
        """The same recipe for a policy that is fed the step counter alone."""
        return replace(self.recipe, controls=replace(self.recipe.controls, observe=BLIND))


def grid_winners(
    *settings: Setting,
    shapes: tuple[str, ...] = SHAPES,
    said: Callable[[str], None] = lambda text: None,
) -> dict[str, FixedSchedule]:
    """The best schedule of each shape, and the best TTUR with Adam, on validation tasks.

    Of several settings, each counts in units of the distance at its start. Where rates begin anywhere (`RL2.spread`), a schedule
    is a multiple of what each task begins with.
    """
    benches = [setting.bench("validation") for setting in settings]
    controls, relative = settings[0].recipe.controls, settings[0].spread > 0

    def judge(schedule: FixedSchedule) -> float:
        outcomes = [bench.follow(schedule) for bench in benches]
        if len(outcomes) == 1:
            return float(outcomes[0].area.mean())
        return sum(float(each.area.mean() / each.curve[0].mean()) for each in outcomes) / len(outcomes)

    winners: dict[str, FixedSchedule] = {}
    count = sum(len(bench.batch.ids) for bench in benches)
    for shape in shapes:
        said(f"choosing the best {shape} schedule on {count} validation tasks")
        schedule, area, tried = best_schedule(controls, judge, shape=shape, relative=relative)
        winners[f"best {shape}"] = schedule
        words = schedule.describe(controls)
        said(f"best {shape} of {tried}: {words}; area {area:.4f}")
    if "adam" in controls.optimisers:
        tried_ttur = _ttur(controls.optimisers.index("adam"), relative)
        winners["TTUR, Adam"] = min(tried_ttur, key=judge)
        said(f"TTUR: {winners['TTUR, Adam'].describe(controls)}")
    return winners


def _ttur(adam: int, relative: bool) -> list[FixedSchedule]:
    """Two time scales (Heusel et al. 2017, arXiv 1706.08500): D's rate four times G's, a grid of rates."""
    return [
        FixedSchedule(adam, 0, (i * STEP / 2, i * STEP / 2 + math.log(4.0)), "constant", relative)
        for i in range(-2 * WIDEST, 2 * WIDEST + 1)
    ]


def compare(
    setting: Setting,
    controllers: dict[str, Controller],
    winners: dict[str, FixedSchedule],
) -> dict[str, Outcome]:
    """Everybody on the test tasks."""
    bench = setting.bench("test")
    outcomes = {name: bench.follow(schedule) for name, schedule in winners.items()}
    outcomes["random actions"] = bench.follow(RandomSteering(setting.seed))
    for name, controller in controllers.items():
        outcomes[name] = bench.follow(controller.steering(), controls=controller.controls)
    return outcomes


def learn(
    recipe: RL2,
    settings: Sequence[Setting],
    *,
    seed: int = 0,
    callback: Callable[[Update], None] | None = None,
) -> tuple[Controller, dict[str, float]]:
    """A controller of the train tasks of all settings, which take turns, and what it cost: seconds, task_steps_per_s, and
    outside_engine, the share of the time."""
    environments = [
        recipe.environment(each.engine, each.tasks.split("train"), each.phi, shots=each.shots)
        for each in settings
    ]
    learner = recipe.learner(environments[0], seed=seed)
    started = time.perf_counter()
    begun = sum(each.at_work.seconds for each in environments)
    while learner.done < recipe.updates:
        learner.enter(environments[learner.done % len(environments)])
        learner.run(callback, until=learner.done + 1)
    seconds = time.perf_counter() - started
    inside = sum(each.at_work.seconds for each in environments) - begun
    task_steps = recipe.updates * recipe.tasks_per_update * recipe.steps
    cost = {
        "seconds": seconds,
        "task_steps_per_s": task_steps / seconds,
        "outside_engine": 1 - inside / seconds,
    }
    return Controller(recipe, learner.policy), cost


def study(
    setting: Setting,
    *,
    sources: Sequence[Setting] = (),
    controller: Controller | None = None,
    callback: Callable[[Update], None] | None = None,
    said: Callable[[str], None] = lambda text: None,
    trained: Callable[[Controller], None] = lambda controller: None,
) -> tuple[dict[str, Any], dict[str, Outcome], Controller]:
    """Train the controller (unless there is one) and its blind twin, choose the best schedules, compare all on test tasks.

    Args:
        setting: what is judged.
        sources: what is learned from, if not from the setting's own train tasks; the schedules that are best there are judged
            beside those that are best on the setting's own validation tasks.
        controller: a trained one.
        callback: after every update of either policy.
        said: is told of every winner of a grid.
        trained: is given the controller as soon as there is one, long before it is compared.

    Returns:
        The numbers as plain values, the outcomes on the test tasks, the controller.
    """
    started = time.perf_counter()
    seen, costs = sources or (setting,), []
    if controller is None:
        controller, cost = learn(setting.recipe, seen, seed=setting.seed, callback=callback)
        costs.append(cost)
    trained(controller)
    blind, cost = learn(setting.blind(), seen, seed=setting.seed, callback=callback)
    costs.append(cost)
    winners = grid_winners(setting, said=said)
    if sources:
        there = [replace(each, wide=setting.wide) for each in sources]
        elsewhere = grid_winners(*there, shapes=("constant", "cosine"), said=said)
        winners |= {f"{name} of the sources": schedule for name, schedule in elsewhere.items()}
    outcomes = compare(setting, {"step counter only": blind, "controller": controller}, winners)
    controls = setting.recipe.controls
    numbers = {
        "tasks": setting.tasks.name,
        "sources": [each.tasks.name for each in sources],
        "test_tasks": setting.test_tasks,
        "recipe": setting.recipe.to_config(),
        "schedules": {name: schedule.describe(controls) for name, schedule in winners.items()},
        "outcomes": to_json(outcomes, AGAINST),
        "training": costs,  # of the controller, unless it was there, and of its blind twin
        "wall_s": round(time.perf_counter() - started, 1),
    }
    return numbers, outcomes, controller


def table(numbers: dict[str, Any]) -> str:
    """See `comparison.table`; of "outcomes", against the best constant schedule."""
    return outcomes_table(numbers, AGAINST)
