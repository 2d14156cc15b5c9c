"""A controller's training inside a run: a bar, a file that is whole after any kind of end, Ctrl-C, resuming bit for bit."""

from __future__ import annotations

import time
from pathlib import Path

from .. import checkpoint
from ..errors import CheckpointError, Interrupted
from ..loop import SAVE_EVERY_S
from ..progress import Bar
from ..stop import Stop
from .controller import KIND, Controller
from .start import SharedStart
from .steering import PolicySteering
from .studies.gan import Setting

__all__ = ["CONTROLLER", "train_controller"]

CONTROLLER = "controller.safetensors"


def train_controller(
    setting: Setting,
    *,
    folder: Path | None = None,
    show: bool = False,
) -> Controller:
    """Train a policy to its last update, and with `RL2.meta_steps` the start of adaptation beside it, from where the folder's
    file stands.

    Args:
        setting: the recipe, and the engine, tasks and parameters that it is for.
        folder: holds controller.safetensors; None keeps everything in memory.
        show: a progress bar on stderr.

    Raises:
        Interrupted: Ctrl-C or SIGTERM; the state is saved.
        CheckpointError: the file is damaged, or of a controller with another recipe.
    """
    path = None if folder is None else folder / CONTROLLER
    recipe, train = setting.recipe, setting.tasks.split("train")
    environment = recipe.environment(setting.engine, train, setting.phi, shots=setting.shots)
    learner = recipe.learner(environment, seed=setting.seed)
    start = SharedStart(
        setting.engine,
        train,
        setting.phi,
        recipe.controls,
        steps=recipe.steps,
        shots=setting.shots,
        queries=setting.queries,
        lr=recipe.meta_lr,
        seed=setting.seed,
    )
    if path is not None and path.exists():
        tensors, state = checkpoint.load(path, kind=KIND)
        if state.get("rl2") != recipe.to_config():
            raise CheckpointError(f"{path} holds a controller with another recipe; choose another out=")
        learner.restore(tensors, state)
        if recipe.meta_steps:
            start.restore(tensors)
            environment.start_at(start.phi)

    def save() -> None:
        if path is not None:
            tensors, state = learner.state()
            if recipe.meta_steps:
                tensors |= start.state()
            checkpoint.save(path, tensors, {"rl2": recipe.to_config(), **state}, kind=KIND)

    saved = time.monotonic()
    bar = Bar("controller", learner.done, recipe.updates, recipe.tasks_per_update, show=show)
    with Stop() as stop, bar:
        while learner.done < recipe.updates:
            said = learner.update()
            for _ in range(recipe.meta_steps):
                start.step(PolicySteering(learner.policy), done=learner.done / recipe.updates)
            if recipe.meta_steps:
                environment.start_at(start.phi.clone())
            bar.advance(f"return {said.mean_return:.3f}")
            if stop.asked:
                save()
                done = f"the controller is at update {learner.done} of {recipe.updates}"
                place = f"; the same command resumes in {folder}" if folder else "; nothing was saved"
                raise Interrupted(f"stopped: {done}{place}")
            if time.monotonic() - saved > SAVE_EVERY_S:
                save()
                saved = time.monotonic()
    save()
    return Controller(recipe, learner.policy, start.phi if recipe.meta_steps else None)
