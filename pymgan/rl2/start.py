"""Where adaptation starts, meta-learned along the schedules of a controller that learns beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from ..contract import Objective, Rng, Schedule
from ..meta.base import QUERY_STREAM, support_data
from .controlled import ControlledLoop
from .controls import Controls, Turn
from .steering import Steering, drive

if TYPE_CHECKING:
    from ..contract import Engine
    from ..tasks import TaskDistribution

__all__ = ["SharedStart"]

TASKS = 16  # in a meta-step
SAMPLES = 32  # generated for the energy distance
CLIP = 10.0  # of the gradient's norm
BETAS = (0.9, 0.99)
STREAM = 103  # of random numbers: not that of training, validation or test tasks


class SharedStart:
    """phi [P], which takes meta-steps: exact ones of second order, through all K inner steps as somebody steers them, of the
    energy distance to query samples. The schedule is taken as it is; what it does with another phi is the policy's to learn.

    Args:
        engine: compiled for `controls`, with as many reals as shots.
        tasks: of the train classes.
        phi: [P], to begin with.
        controls, steps: of the controller.
        shots, queries: samples of a task.
        lr: of Adam; it falls linearly to zero over the run.
        seed: of tasks and noise.
    """

    def __init__(
        self,
        engine: Engine,
        tasks: TaskDistribution,
        phi: Tensor,
        controls: Controls,
        *,
        steps: int,
        shots: int,
        queries: int,
        lr: float,
        seed: int,
    ) -> None:
        self._engine, self._tasks, self._controls, self._steps = engine, tasks, controls, steps
        self._shots, self._queries, self._lr, self._seed = shots, queries, lr, seed
        self._phi = nn.Parameter(phi.detach().float().clone())
        self._adam = torch.optim.Adam([self._phi], lr=lr, betas=BETAS)
        self.done = 0

    @property
    def phi(self) -> Tensor:
        """[P]."""
        return self._phi.detach()

    def step(self, steering: Steering, *, done: float) -> float:
        """One meta-step, when the fraction `done` of the run is behind it; returns the mean energy distance after adaptation."""
        engine = self._engine
        random = np.random.default_rng([self._seed, STREAM, self.done])
        batch = self._tasks.sample(TASKS, self._shots, self._queries, random)
        turns = self._steer(steering, batch.support, batch.ids)
        rate, kind, active = (
            torch.cat([getattr(turn, name) for turn in turns], 1).to(engine.device)
            for name in ("rate", "kind", "active")
        )
        result = engine.meta_gradient(
            self.phi.to(engine.device, engine.dtype),
            support_data(batch, engine, self._steps),
            Schedule(rate=rate, active=active, kind=kind),
            Rng(seed=self._seed, tasks=batch.ids),
            Objective(batch.query.to(engine.device, engine.dtype), samples=SAMPLES, stream=QUERY_STREAM),
        )
        self.done += 1
        if bool(result.trace.valid.any()):  # of invalid tasks alone there is no direction
            self._phi.grad = result.gradient.float().cpu()
            nn.utils.clip_grad_norm_([self._phi], CLIP)
            self._adam.param_groups[0]["lr"] = self._lr * (1 - done)
            self._adam.step()
        return float(result.value[result.trace.valid].mean())

    def state(self) -> dict[str, Tensor]:
        """What the next step depends on, beside the policy."""
        moments = self._adam.state_dict()["state"].get(0, {})
        return {
            "start.phi": self.phi,
            "start.done": torch.tensor(self.done),
            **{f"start.adam.{name}": value for name, value in moments.items()},
        }

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Go on where `state` was taken."""
        self._phi.data.copy_(tensors["start.phi"])
        self.done = int(tensors["start.done"])
        prefix = "start.adam."
        moments = {
            name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)
        }
        self._adam.load_state_dict({**self._adam.state_dict(), "state": {0: moments} if moments else {}})

    def _steer(self, steering: Steering, support: Tensor, ids: Tensor) -> list[Turn]:
        """What is done with these tasks."""
        loop = ControlledLoop(
            self._engine, self._controls, self.phi, support, ids, steps=self._steps, seed=self._seed
        )
        return list(drive(loop, steering))
