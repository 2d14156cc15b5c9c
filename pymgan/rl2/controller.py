"""`pymgan.RL2`: a controller of the inner loop to be learned, and `Controller`: one that was."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .. import checkpoint
from ..errors import CheckpointError
from ..meta.base import number, whole
from .controlled import ControlledLoop
from .controls import Controls
from .environments.gan_control import OBSERVATION_SPACE, GANControl, action_space
from .learn import Learner, Update
from .policy import Policy
from .ppo import PPO
from .steering import PolicySteering, drive

if TYPE_CHECKING:
    from ..contract import Engine
    from ..tasks import TaskDistribution

__all__ = ["KIND", "RL2", "Controller"]

KIND = "controller"
GAN_PPO = PPO(lr=3e-3, epochs=4, belief=0.0, entropy=0.003)


@dataclass(frozen=True, kw_only=True)
class RL2:
    """A recurrent policy that steers the inner loop, trained by reinforcement learning over many tasks (Duan et al. 2016).

    Attributes:
        steps: K, inner steps of an adaptation, a multiple of `controls.every`.
        updates: rollouts that the policy learns from.
        tasks_per_update: adaptations in each.
        copies: adaptations of the same task, of which an update tells the better from the worse ones; `tasks_per_update` is a
            multiple.
        hidden: numbers in the policy's hidden state.
        spread: while it learns, the rates' offsets (log units) begin uniformly in [-spread, spread].
        objective: "area" between the start and the curve of distances, or "final", the distance after K steps.
        betas: of an inner "adam"; the second of "rmsprop" too.
        meta_steps: that the start of adaptation takes after each update, along the schedules that the policy then chooses
            (`SharedStart`): both are improved in one outer loop. With 0 adaptation starts where `meta` has left it.
        meta_lr: of these steps.
        controls: what it may turn, and what it sees.
        ppo: how it learns.
    """

    steps: int = 20
    updates: int = 150
    tasks_per_update: int = 128
    copies: int = 4
    hidden: int = 64
    spread: float = 0.0
    objective: str = "area"
    betas: tuple[float, float] = (0.5, 0.9)
    meta_steps: int = 0
    meta_lr: float = 1e-3
    controls: Controls = field(default_factory=Controls)
    ppo: PPO = GAN_PPO

    def __post_init__(self) -> None:
        for name in ("steps", "updates", "tasks_per_update", "copies", "hidden"):
            whole(name, getattr(self, name), least=1)
        if self.tasks_per_update % self.copies:
            raise ValueError(
                f"[rl2] expected tasks_per_update as a multiple of copies = {self.copies}, got {self.tasks_per_update}"
            )
        if self.steps % self.controls.every:
            raise ValueError(
                f"[rl2] expected steps as a multiple of every = {self.controls.every}, got {self.steps}"
            )
        whole("meta_steps", self.meta_steps, least=0)
        for name in ("spread", "meta_lr"):
            number(name, getattr(self, name), low=0.0)

    def inner_loop(self) -> dict[str, Any]:
        """How the steps go, in the words of `pymgan.compile`."""
        return {"optimisers": self.controls.optimisers, "betas": self.betas}

    def environment(self, engine: Engine, tasks: TaskDistribution, phi: Tensor, *, shots: int) -> GANControl:
        """The environment that a policy learns in: tasks of one split, from phi [P]."""
        return GANControl(
            engine,
            tasks,
            phi,
            self.tasks_per_update,
            copies=self.copies,
            controls=self.controls,
            steps=self.steps,
            shots=shots,
            spread=self.spread,
            objective=self.objective,
        )

    def learner(self, environment: GANControl, *, seed: int = 0) -> Learner:
        """Ready for its first update."""
        return Learner(environment, self.ppo, updates=self.updates, hidden=self.hidden, seed=seed)

    def learn(
        self,
        engine: Engine,
        tasks: TaskDistribution,
        phi: Tensor,
        *,
        shots: int = 8,
        seed: int = 0,
        callback: Callable[[Update], None] | None = None,
    ) -> Controller:
        """Train a policy on tasks (of the train classes), from parameters phi [P], which stay; without interruption.

        Args:
            engine: compiled with `inner_loop()` and as many reals as shots.
        """
        learner = self.learner(self.environment(engine, tasks, phi, shots=shots), seed=seed)
        return Controller(self, learner.run(callback))

    def to_config(self) -> dict[str, Any]:
        """As plain JSON values; `from_config` is the way back."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return values | {
            "betas": list(self.betas),
            "controls": self.controls.to_config(),
            "ppo": asdict(self.ppo),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> RL2:
        """The inverse of `to_config`."""
        return cls(
            **{
                "copies": 1,  # recipes of before 28 November 2026 do not say it
                **config,
                "betas": tuple(config["betas"]),
                "controls": Controls.from_config(config["controls"]),
                "ppo": PPO(**{"belief": 0.0, **config["ppo"]}),  # nor this
            }
        )


@dataclass(frozen=True)
class Steered:
    """What `Controller.adapt` returns.

    Attributes:
        phi: phi_K [T, P]; of a task that is not valid, the last finite one.
        valid: bool [T].
        loss_g, loss_d: [T, K].
    """

    phi: Tensor
    valid: Tensor
    loss_g: Tensor
    loss_d: Tensor


class Controller:
    """A learned policy and what it may turn. It serves any GAN and task family whose engine has its optimisers.

    Attributes:
        recipe: what it was trained with.
        policy: the network.
        phi: [P], where adaptation starts, if that was learned beside the policy (`RL2.meta_steps`); else None.
    """

    def __init__(self, recipe: RL2, policy: Policy, phi: Tensor | None = None) -> None:
        self.recipe, self.policy, self.phi = recipe, policy, phi

    @property
    def controls(self) -> Controls:
        """What it may turn."""
        return self.recipe.controls

    def steering(self) -> PolicySteering:
        """Ready to steer one `ControlledLoop`."""
        return PolicySteering(self.policy)

    def adapt(
        self,
        engine: Engine,
        phi: Tensor,
        support: Tensor,
        ids: Tensor,
        *,
        steps: int | None = None,
        seed: int = 0,
    ) -> Steered:
        """Adapt phi, [P] or [T, P], to supports [T, S, *sample]."""
        count = self.recipe.steps if steps is None else steps
        loop = ControlledLoop(engine, self.controls, phi, support, ids, steps=count, seed=seed)
        losses = [(loop.trace.loss_g, loop.trace.loss_d) for _ in drive(loop, self.steering()) if loop.trace]
        loss_g, loss_d = (torch.cat(each, 1) for each in zip(*losses, strict=True))
        return Steered(loop.phi, loop.valid, loss_g, loss_d)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write policy and recipe to one safetensors file, atomically; `Controller.load` reads it."""
        tensors = {f"policy.{name}": value for name, value in self.policy.state_dict().items()}
        if self.phi is not None:
            tensors["start.phi"] = self.phi
        state = {"rl2": self.recipe.to_config(), "done": self.recipe.updates}
        checkpoint.save(path, tensors, state, kind=KIND)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Controller:
        """Read what `save` wrote, or a run's controller.safetensors.

        Raises:
            FileNotFoundError: there is no such file.
            CheckpointError: it is damaged, something else, or not trained to its end.
        """
        if not Path(path).exists():
            raise FileNotFoundError(f"expected a controller that pymgan saved, found no file {path}")
        tensors, state = checkpoint.load(path, kind=KIND)
        try:
            recipe = RL2.from_config(state["rl2"])
            if state["done"] != recipe.updates:
                raise ValueError(f"{state['done']} of {recipe.updates} updates are done")
            own = {
                name.removeprefix("policy."): v for name, v in tensors.items() if name.startswith("policy.")
            }
            known = len(own.get("guess.bias", ())) // 2
            policy = Policy(
                OBSERVATION_SPACE, action_space(recipe.controls), hidden=recipe.hidden, known=known
            )
            policy.load_state_dict(own)
        except (KeyError, TypeError, RuntimeError, ValueError) as error:
            raise CheckpointError(f"{path} does not fit together ({error})") from error
        return cls(recipe, policy, tensors.get("start.phi"))
