"""GAN training as an environment: a sub-environment is one task, an action steers its next inner steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from torch import Tensor

from ...meta.base import number, whole
from ..controlled import ControlledLoop
from ..controls import OBSERVATIONS, Controls
from ..stopwatch import Stopwatch

if TYPE_CHECKING:
    from ...contract import Engine
    from ...tasks import TaskBatch, TaskDistribution

__all__ = ["DIVERGED", "OBJECTIVES", "OBSERVATION_SPACE", "GANControl", "action_space"]

Array = np.ndarray[Any, np.dtype[Any]]
Start = Tensor | Callable[[int, np.random.Generator], Tensor]
OBJECTIVES = ("area", "final")
DIVERGED = 2.0
"""A task whose distance is so many times that at its start is given up, as one that is not finite."""


OBSERVATION_SPACE = spaces.Box(-np.inf, np.inf, (len(OBSERVATIONS),), np.float32)


def action_space(controls: Controls) -> spaces.Dict:
    """Of one task: changes of the offsets of (G, D) in units of `Controls.change`, an optimiser, a ratio."""
    return spaces.Dict(
        {
            "change": spaces.Box(-1.0, 1.0, (2,), np.float32),
            "optimiser": spaces.Discrete(len(controls.optimisers)),
            "ratio": spaces.Discrete(len(controls.ratios)),
        }
    )


class GANControl(VectorEnv[Array, dict[str, Array], Array]):
    """N tasks whose inner loops are controlled together, `controls.every` steps and one engine call at a time.

    An episode is one adaptation of K steps, and a trial. The reward is the fall of the energy distance between generated
    samples and *validation* samples of the task, that its inner loop does not see, in units of `scale`. With the objective
    "area" a fall counts for all the time that is left, so that the return is the area between the start's distance and the
    curve of distances, divided by its length; with "final" it counts once. A task that diverges ends its episode and costs 1.

    What the policy sees (`OBSERVATIONS`) needs nothing but the support set, and so does infos["seen_reward"], float [N], which
    it is shown as its last reward: a policy that was trained here can be used where there are no validation samples. What is
    known in training alone, infos["known"], float32 [N, 2], is the distance to these, now and at the start, in units of `scale`.
    infos["task"], int64 [N], is the same for copies of a task.

    Args:
        engine: compiled with `controls.optimisers` and as many reals as `shots`.
        tasks: what sub-environments are drawn from (a split of a distribution).
        start: [P], the parameters that every task starts from, or a function of (number of tasks, generator) that draws [T, P].
        num_envs: N, a multiple of `copies`.
        copies: sub-environments next to each other that begin on the same task with the same noise and rates, when all begin. One
            that diverges goes on with a task of its own.
        controls: what the actions turn.
        steps: K, a multiple of `controls.every`.
        shots: support samples of a task.
        queries: validation samples of a task.
        samples: generated samples that a distance is measured with.
        spread: the rates' offsets begin uniformly in [-spread, spread] (log units); 0 begins at `REFERENCE`.
        objective: "area" or "final".
        scale: one reward's unit of distance; None measures the mean distance at the start of 64 tasks.

    Attributes:
        trial_steps: actions of a trial.
        known: numbers in a row of infos["known"].
        at_work: seconds that the engine was at work.
    """

    metadata: ClassVar[dict[str, Any]] = {"autoreset_mode": AutoresetMode.SAME_STEP}  # type: ignore[misc]

    def __init__(
        self,
        engine: Engine,
        tasks: TaskDistribution,
        start: Start,
        num_envs: int,
        *,
        copies: int = 1,
        controls: Controls | None = None,
        steps: int = 40,
        shots: int = 8,
        queries: int = 32,
        samples: int = 32,
        spread: float = 0.0,
        objective: str = "area",
        scale: float | None = None,
    ) -> None:
        controls = controls or Controls()
        counts = {"num_envs": num_envs, "copies": copies, "queries": queries, "samples": samples}
        for name, value in counts.items():
            whole(name, value, least=1)
        if num_envs % copies:
            raise ValueError(f"[rl2] expected num_envs as a multiple of copies = {copies}, got {num_envs}")
        number("spread", spread, low=0.0)
        if objective not in OBJECTIVES:
            raise ValueError(
                f"[rl2] expected objective {' or '.join(map(repr, OBJECTIVES))}, got {objective!r}"
            )
        self.engine, self.tasks, self.controls = engine, tasks, controls
        self.num_envs, self.copies = num_envs, copies
        self.steps, self.trial_steps = steps, steps // controls.every
        self._start, self._shots, self._queries, self._samples = start, shots, queries, samples
        self._spread, self._objective = spread, objective
        self.at_work = Stopwatch()
        self.single_observation_space = OBSERVATION_SPACE
        self.single_action_space = action_space(controls)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.known = 2
        self.scale = self._measure() if scale is None else scale
        number("scale", self.scale, low=0.0)

    def start_at(self, phi: Tensor) -> None:
        """New tasks start from these parameters [P]."""
        self._start = phi

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """New tasks everywhere."""
        super().reset(seed=seed)
        batch, phi, offset = self._draw(self.num_envs, self.np_random, copies=self.copies)
        self._loop = self._begin(batch, phi, offset)
        self._query = self._queries_of(batch)
        self._distance = self._first = self._loop.distance(self._query)
        return self._loop.observation().numpy(), self._told()

    def step(self, actions: dict[str, Array]) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """One action of every task: {"change": [N, 2], "optimiser": [N], "ratio": [N]}."""
        loop = self._loop
        weight = 1 - loop.done / self.steps if self._objective == "area" else torch.ones(self.num_envs)
        loop.act(*(torch.as_tensor(np.asarray(actions[name])) for name in ("change", "optimiser", "ratio")))
        now = loop.distance(self._query)
        failed = ~loop.valid | ~torch.isfinite(now) | (now > DIVERGED * self._first)
        reward = torch.where(failed, -1.0, weight * (self._distance - now) / self.scale)
        ended = failed | (loop.done >= self.steps)
        infos: dict[str, Any] = {
            "seen_reward": loop.shown_reward.numpy(),
            "diverged": failed.numpy(),
            "distance": now.numpy(),
        }
        self._distance = now
        if bool(ended.any()):
            infos["final_obs"] = loop.observation().numpy()
            self._renew(ended)
        infos |= self._told()
        return (
            self._loop.observation().numpy(),
            reward.numpy(),
            ended.numpy(),
            np.zeros(self.num_envs, bool),
            infos,
        )

    def _told(self) -> dict[str, Any]:
        distances = torch.stack([self._distance, self._first], 1).float().cpu()
        return {"known": distances.numpy() / self.scale, "task": self._loop.ids.numpy().copy()}

    def _renew(self, rows: Tensor) -> None:
        """New tasks where rows, bool [N], is True."""
        copies = self.copies if bool(rows.all()) else 1
        batch, phi, offset = self._draw(int(rows.sum()), self.np_random, copies=copies)
        self._loop.replace(rows, phi, batch.support, batch.ids, offset)
        where = rows.nonzero().flatten()
        self._query = self._query.index_copy(0, where.to(self._query.device), self._queries_of(batch))
        fresh = self._loop.distance(self._query, where)
        self._first = self._first.index_copy(0, where, fresh)
        self._distance = self._distance.index_copy(0, where, fresh)

    def _queries_of(self, batch: TaskBatch) -> Tensor:
        return batch.query.to(self.engine.device, self.engine.dtype)

    def _draw(
        self, count: int, random: np.random.Generator, *, copies: int = 1
    ) -> tuple[TaskBatch, Tensor, Tensor]:
        """Tasks, and the parameters and offsets that they begin with."""
        drawn = count // copies
        batch = self.tasks.sample(drawn, self._shots, self._queries, random).repeat(copies)
        phi = self._start if isinstance(self._start, Tensor) else self._start(drawn, random)
        if phi.ndim == 2:
            phi = phi.repeat_interleave(copies, 0)
        offset = torch.from_numpy(random.uniform(-self._spread, self._spread, (drawn, 2)))
        return batch, phi, offset.repeat_interleave(copies, 0)

    def _begin(self, batch: TaskBatch, phi: Tensor, offset: Tensor) -> ControlledLoop:
        return ControlledLoop(
            self.engine,
            self.controls,
            phi,
            batch.support,
            batch.ids,
            steps=self.steps,
            samples=self._samples,
            offset=offset,
            at_work=self.at_work,
        )

    def _measure(self) -> float:
        """The mean distance to validation samples at the start of 64 tasks of their own."""
        batch, phi, offset = self._draw(64, np.random.default_rng(0))
        loop = self._begin(batch, phi, torch.zeros_like(offset))
        return float(loop.distance(self._queries_of(batch)).mean().clamp_min(1e-6))
