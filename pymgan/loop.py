"""The training loop: batches, meta-steps, rows of metrics, checkpoints, and all ways in which it stops."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from .errors import Interrupted, TrainingFailed
from .evaluate import Contender, chunks, energy_after, score
from .events import Events
from .folder import RunFolder, jsonable
from .learner import Learner
from .memory import peak_memory
from .meta import Meta
from .progress import Bar
from .settings import Settings
from .stop import Stop

if TYPE_CHECKING:
    from .contract import Engine
    from .tasks import TaskBatch, TaskDistribution

__all__ = ["Callback", "Engines", "Step", "Trainer", "draw"]

# Purposes of random streams: which tasks are drawn depends on (seed, purpose, step) and on nothing else.
TRAIN, VALIDATION, TEST = range(3)

ROWS = 500  # rows of metrics per method
VALIDATIONS = 20  # of which so many carry the energy distance on validation classes
VALIDATION_TASKS = 40
SAVE_EVERY_S = 5.0
FAILURES = 5  # steps in a row (or all of a shorter run) in which most tasks failed: that is not bad luck


@dataclass(frozen=True)
class Step:
    """What a callback gets after every meta-step.

    Attributes:
        method: the name in this run of the method that trains, such as "maml".
        step: meta-steps done.
        metrics: objective, losses, gradient norm; now and then the energy distance on validation classes.
        parameters: [P], the meta-parameters. Valid until the next step; copy it to keep it.
    """

    method: str
    step: int
    metrics: dict[str, float]
    parameters: Tensor


Callback = Callable[[Step], None]


@dataclass(frozen=True)
class Engines:
    """The engines of a run by method name: to adapt to a support set, and to take meta-steps."""

    adapt: dict[str, Engine]
    step: dict[str, Engine]


def draw(
    tasks: TaskDistribution,
    settings: Settings,
    purpose: int,
    step: int = 0,
    *,
    count: int | None = None,
    **options: Any,
) -> TaskBatch:
    """The tasks of one step: the same arguments give the same tasks, also after a resume."""
    rng = np.random.default_rng([settings.seed, purpose, step])
    return tasks.sample(count or settings.tasks_per_step, settings.shots, settings.queries, rng, **options)


class Trainer:
    """Trains the methods of a run one after the other and keeps the folder in step.

    Args:
        settings: of the run.
        tasks: the whole distribution.
        methods: those of `settings`, in order; those that train become learners.
        engines: of every method, by its name in `settings.names`.
        initial: [P], the weights that every method started from.
        folder: None keeps everything in memory.
        callbacks: called after every meta-step.
        show: a progress bar and lines on stderr.
    """

    def __init__(
        self,
        settings: Settings,
        tasks: TaskDistribution,
        methods: Sequence[Meta],
        engines: Engines,
        initial: Tensor,
        *,
        folder: RunFolder | None = None,
        callbacks: Sequence[Callback] = (),
        show: bool = True,
    ) -> None:
        self.settings = settings
        split = next(iter(engines.adapt.values())).generator_parameters
        self.learners = [
            Learner(method, initial, split=split, steps=settings.steps[name], name=name)
            for name, method in zip(settings.names, methods, strict=True)
            if method.trains
        ]
        self.engines = engines
        self.initial = initial
        self.history: list[dict[str, Any]] = []
        self._folder = folder
        self._train = tasks.split("train")
        self._validation = draw(tasks.split("validation"), settings, VALIDATION, count=VALIDATION_TASKS)
        self._callbacks = callbacks
        self._show = show
        self._saved_at = time.monotonic()

    @property
    def folder(self) -> RunFolder | None:
        return self._folder

    @property
    def validation(self) -> TaskBatch:
        """The fixed tasks of the validation classes."""
        return self._validation

    def learner(self, name: str) -> Learner | None:
        """The learner of a trained method, by its name in the run."""
        return next((learner for learner in self.learners if learner.name == name), None)

    def seconds(self) -> dict[str, float]:
        """Wall time of each trained method's steps, over all sessions."""
        return {row["method"]: row["wall_s"] for row in self.history}

    def estimate(self) -> tuple[float, float]:
        """Seconds of the remaining steps, and bytes that this process needs for them and for the evaluation, from
        trying a few steps and a part of the evaluation.
        """
        seconds = 0.0
        for learner in self.learners:
            left = self.settings.steps[learner.name] - learner.step
            if left > 0:
                seconds += left * min(self._try_step(learner) for _ in range(3))
        self._try_evaluation()
        return seconds, peak_memory()

    def _try_step(self, learner: Learner) -> float:
        """Seconds of one meta-step that changes nothing."""
        started = time.monotonic()
        batch = draw(self._train, self.settings, TRAIN, learner.step)
        learner.meta.direction(
            self.engines.step[learner.name],
            learner.parameters,
            learner.inner_rates,
            batch,
            seed=self.settings.seed,
            step=learner.step,
        )
        return time.monotonic() - started

    def _try_evaluation(self) -> None:
        """Draw as many tasks as in the evaluation at the end, of train classes, and judge one chunk of them."""
        own = self.settings.names[0]
        learner, settings = self.learner(own), self.settings
        rates = learner.inner_rates if learner else settings.metas()[0].rates()
        batch = draw(self._train, settings, TRAIN, count=settings.test_tasks)
        score(
            Contender(own, self.engines.adapt[own], self.initial, rates),
            next(chunks(batch)),
            seed=settings.seed,
        )

    def restore(self) -> bool:
        """Continue from the folder's checkpoint; True when there was one."""
        found = self._folder.restore() if self._folder else None
        if self._folder is None or found is None:
            return False
        tensors, state = found
        if tensors["initial"].shape != self.initial.shape:
            raise ValueError(
                f"expected a checkpoint with {self.initial.numel():,} parameters, got "
                f"{tensors['initial'].numel():,}"
            )
        self.initial = tensors["initial"]
        for learner in self.learners:
            prefix = f"{learner.name}."
            own = {
                key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)
            }
            learner.restore(own, state["learners"][learner.name])
        done = {learner.name: learner.step for learner in self.learners}
        self.history = self._folder.cut(lambda row: row.get("step", 0) <= done.get(row.get("method", ""), -1))
        return True

    def save(self) -> None:
        """Write the checkpoint now. Its bytes depend on the steps done and not on when it is written."""
        self._saved_at = time.monotonic()
        if self._folder is None:
            return
        tensors, counters = {"initial": self.initial}, {}
        for learner in self.learners:
            own, counters[learner.name] = learner.state()
            tensors |= {f"{learner.name}.{key}": value for key, value in own.items()}
        self._folder.save(tensors, {"learners": counters})

    def run(self) -> None:
        """Train every method to its last step.

        Raises:
            Interrupted: Ctrl-C or SIGTERM; the state is saved.
            TrainingFailed: most tasks became non-finite; the last good state is saved.
        """
        if self._folder is not None and not any(learner.step for learner in self.learners):
            self.save()  # a run that fails or ends early leaves a state from its first moment on
        with Stop() as stop:
            for learner in self.learners:
                if learner.step < self.settings.steps[learner.name]:
                    self._train_one(learner, stop)
                    self.save()

    def _train_one(self, learner: Learner, stop: Stop) -> None:
        name, settings = learner.name, self.settings
        total = settings.steps[name]
        engine = self.engines.step[name]
        earlier = [row["wall_s"] for row in self.history if row["method"] == name]
        started = time.monotonic() - (earlier[-1] if earlier else 0.0)
        failures = 0
        events = Events(self._folder.path / "events" / name if self._folder else None, learner.step)
        with events, Bar(name, learner.step, total, settings.tasks_per_step, show=self._show) as bar:
            while learner.step < total:
                batch = draw(self._train, settings, TRAIN, learner.step)
                direction = learner.meta.direction(
                    engine,
                    learner.parameters,
                    learner.inner_rates,
                    batch,
                    seed=settings.seed,
                    step=learner.step,
                )
                failed = 2 * int(direction.valid.sum()) < len(direction.valid)
                failures = failures + 1 if failed else 0
                if failures >= min(FAILURES, total):
                    self._fail(learner, failures)
                norm = learner.descend(direction)
                metrics = direction.metrics | {"gradient_norm": norm}
                if _due(learner.step, total, VALIDATIONS):
                    metrics |= self._validate(learner)
                if _due(learner.step, total, ROWS):
                    self._row(learner, metrics, time.monotonic() - started)
                    events.add(learner.step, metrics)
                bar.step(metrics, learner.skipped)
                for callback in self._callbacks:
                    callback(Step(name, learner.step, metrics, learner.parameters))
                if stop.asked:
                    self._interrupt(learner, failures)
                if failures == 0 and time.monotonic() - self._saved_at > SAVE_EVERY_S:
                    self.save()

    def _validate(self, learner: Learner) -> dict[str, float]:
        """Energy distance after adaptation on validation classes, of averaged and of raw meta-parameters."""
        engine = self.engines.adapt[learner.name]
        both = {"validation_energy": learner.average, "validation_energy_raw": learner.parameters}
        return {
            name: energy_after(engine, phi, learner.inner_rates, self._validation, seed=self.settings.seed)
            for name, phi in both.items()
        }

    def _row(self, learner: Learner, metrics: dict[str, float], wall: float) -> None:
        row = {
            "method": learner.name,
            "step": learner.step,
            **jsonable(metrics),
            "tasks": learner.tasks,
            "skipped": learner.skipped,
            "wall_s": round(wall, 3),
        }
        self.history.append(row)
        if self._folder:
            self._folder.append(row)

    def _interrupt(self, learner: Learner, failures: int) -> None:
        done = f"{learner.name} is at step {learner.step} of {self.settings.steps[learner.name]}"
        if self._folder is None:
            raise Interrupted(f"stopped: {done}; nothing was saved, as there is no out= folder")
        if failures == 0:
            self.save()
        raise Interrupted(f"stopped and saved: {done}; the same command resumes in {self._folder.path}")

    def _fail(self, learner: Learner, failures: int) -> None:
        row = "its only step" if failures == 1 else f"{failures} steps in a row"
        place = f"; the last good state is in {self._folder.path}" if self._folder else ""
        raise TrainingFailed(
            f"{learner.name}: most tasks became non-finite in {row}, the last "
            f"at step {learner.step}"
            f"{place}. Lower inner_lr or outer_lr, or check the data's range"
        )


def _due(step: int, total: int, times: int) -> bool:
    return step == total or step % max(1, total // times) == 0
