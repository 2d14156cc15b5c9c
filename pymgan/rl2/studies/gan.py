"""A controller of GAN training against schedules that look at nothing, on tasks of classes that none of them has seen."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
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
    """

    engine: Engine
    tasks: TaskDistribution
    phi: Tensor
    recipe: RL2
    shots: int = 8
    queries: int = 32
    seed: int = 0
    test_tasks: int = TEST_TASKS

    def bench(self, split: str) -> Bench:
        """Tasks of the split "validation" or "test", and the offsets that their rates begin at."""
        stream, count = (VALIDATION, VALIDATION_TASKS) if split == "validation" else (TEST, self.test_tasks)
        random = np.random.default_rng([self.seed, stream])
        batch = self.tasks.split(split).sample(count, self.shots, self.queries, random)
        spread = self.recipe.spread
        offset = torch.from_numpy(random.uniform(-spread, spread, (count, 2)))
        return Bench(
            self.engine, self.recipe.controls, self.recipe.steps, self.phi, batch, offset, seed=self.seed
        )

    def blind(self) -> RL2:
        """The same recipe for a policy that is fed the step counter alone."""
        return replace(self.recipe, controls=replace(self.recipe.controls, observe=BLIND))


def grid_winners(
    setting: Setting,
    *,
    shapes: tuple[str, ...] = SHAPES,
    said: Callable[[str], None] = lambda text: None,
) -> dict[str, FixedSchedule]:
    """The best schedule of each shape, and the best TTUR with Adam, on validation tasks.

    Where rates begin anywhere (`RL2.spread`), a schedule is a multiple of what each task begins with.
    """
    bench, relative = setting.bench("validation"), setting.recipe.spread > 0
    controls = setting.recipe.controls
    winners: dict[str, FixedSchedule] = {}
    for shape in shapes:
        schedule, area, tried = best_schedule(bench, shape=shape, relative=relative)
        winners[f"best {shape}"] = schedule
        words = schedule.describe(controls)
        said(f"best {shape} of {tried}: {words}; area {area:.4f} on {len(bench.batch.ids)} validation tasks")
    if "adam" in controls.optimisers:
        winners["TTUR, Adam"] = _ttur(bench, controls.optimisers.index("adam"), relative)
        said(f"TTUR: {winners['TTUR, Adam'].describe(controls)}")
    return winners


def _ttur(bench: Bench, adam: int, relative: bool) -> FixedSchedule:
    """Two time scales (Heusel et al. 2017, arXiv 1706.08500): D's rate four times G's, the best of a grid."""
    tried = (
        FixedSchedule(adam, 0, (i * STEP / 2, i * STEP / 2 + math.log(4.0)), "constant", relative)
        for i in range(-2 * WIDEST, 2 * WIDEST + 1)
    )
    return min(tried, key=lambda schedule: float(bench.follow(schedule).area.mean()))


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


def study(
    setting: Setting,
    *,
    controller: Controller | None = None,
    callback: Callable[[Update], None] | None = None,
    said: Callable[[str], None] = lambda text: None,
) -> tuple[dict[str, Any], dict[str, Outcome], Controller]:
    """Train the controller (unless there is one) and its blind twin, choose the best schedules, compare all on test tasks.

    Returns:
        The numbers as plain values, the outcomes on the test tasks, the controller.
    """
    started = time.perf_counter()
    train = setting.tasks.split("train")

    costs: list[dict[str, float]] = []

    def learn(recipe: RL2) -> Controller:
        environment = recipe.environment(setting.engine, train, setting.phi, shots=setting.shots)
        learner = recipe.learner(environment, seed=setting.seed)
        begun, before = time.perf_counter(), environment.at_work.seconds
        policy = learner.run(callback)
        seconds = time.perf_counter() - begun
        task_steps = recipe.updates * recipe.tasks_per_update * recipe.steps
        outside = 1 - (environment.at_work.seconds - before) / seconds
        costs.append(
            {"seconds": seconds, "task_steps_per_s": task_steps / seconds, "outside_engine": outside}
        )
        return Controller(recipe, policy)

    controller = controller or learn(setting.recipe)
    blind = learn(setting.blind())
    winners = grid_winners(setting, said=said)
    outcomes = compare(setting, {"step counter only": blind, "controller": controller}, winners)
    controls = setting.recipe.controls
    numbers = {
        "tasks": setting.tasks.name,
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
