"""`pymgan.train`: from tasks and two networks to a run."""

from __future__ import annotations

import contextlib
import inspect
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .arch import make
from .arch_config import gan_to_config
from .contract import Engine
from .engine import compile as compile_engine
from .errors import CheckpointError
from .finish import finish
from .folder import CHECKPOINT, SUMMARY, RunFolder, read_json
from .gan import GAN
from .loop import Callback, Engines, Trainer
from .meta import MAML, Meta
from .meta import by_name as method_by_name
from .progress import bytes_text, duration, say
from .rl2 import RL2, Controller
from .rl2.studies.gan import Setting
from .rl2.training import CONTROLLER, train_controller
from .run import Run
from .settings import Settings, check_counts, distinct_names
from .threads import one_torch_thread

if TYPE_CHECKING:
    from .tasks import TaskDistribution

__all__ = ["DEFAULTS", "RIVALS", "RIVAL_STEPS", "STEPS", "train"]

STEPS = 3000
RIVALS = ("joint", "reptile", "scratch")

# Steps of a rival for one step of MAML at second order, so that wall times agree on the default run. Measured
# on two cores.
RIVAL_STEPS = {"maml": 1.0, "joint": 4.8, "reptile": 2.4}


def train(
    tasks: TaskDistribution | str | None = None,
    gan: GAN | str | None = None,
    *,
    meta: Meta | str = MAML(),  # noqa: B008 - frozen
    controller: RL2 | str | None = None,
    steps: int = STEPS,
    tasks_per_step: int = 16,
    shots: int = 8,
    queries: int = 8,
    seed: int = 0,
    rivals: Sequence[Meta | str] = RIVALS,
    test_tasks: int = 120,
    engine: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    out: str | os.PathLike[str] | None = None,
    resume: bool = True,
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
) -> Run:
    """Meta-learn a GAN on many small tasks, train the rivals beside it, and evaluate all of them on test
    classes.

    Args:
        tasks: a task distribution, or the name of one ("glyphs" by default; see `pymgan.tasks`).
        gan: a `pymgan.GAN`, or the name of an architecture ("mlp" by default), sized for the tasks' samples.
        meta: how to meta-learn: `pymgan.MAML(...)`, `Reptile(...)`, `Joint(...)`, or the name of one.
        controller: `pymgan.RL2(...)` or "rl2": once `meta` has trained the GAN, a policy learns to steer its inner loop, on
            tasks of train classes, and the run adapts with it.
        steps: meta-steps. Trained rivals take as many as fit into about the same wall time, in the ratios of
            `RIVAL_STEPS`.
        tasks_per_step: tasks in a meta-batch.
        shots: samples in each task's support set.
        queries: samples in each task's query set.
        seed: of the initial weights, the tasks and the noise.
        rivals: methods to compare with, trained in the same run with their own steps. () trains `meta` alone. A name that
            `meta` or an earlier rival has already adds nothing; a value of the same kind goes by what differs, as
            "maml order=1".
        test_tasks: tasks of the test classes in the evaluation at the end.
        engine: "auto", or one of `pymgan env`.
        device: "auto" or a torch device.
        threads: of the engine; None takes all cores. Results do not depend on it.
        out: the run folder. None keeps the run in memory.
        resume: continue the run in `out`. False raises when there is one.
        callbacks: called with a `pymgan.Step` after every meta-step.
        progress: a progress bar and a few lines on stderr.

    Returns:
        The run: adapt with it, look at its history and summary.

    Raises:
        ValueError, TypeError: an argument is not what it should be.
        SettingsChanged: `out` holds a run with other settings; every difference is named.
        FolderInUse: another process is training in `out`.
        FileExistsError: `resume=False` and `out` holds a run.
        CheckpointError: the checkpoint in `out` is damaged.
        TrainingFailed: most tasks became non-finite; the last good state is saved.
        Interrupted: Ctrl-C; the state is saved, and the same call resumes.
        OSError: `out` cannot be written to.
    """
    recipe = _recipe(controller)
    if not all(callable(callback) for callback in callbacks):
        raise TypeError(f"expected callbacks to be functions of a pymgan.Step, got {list(callbacks)!r}")
    started = time.monotonic()
    check_counts(
        steps=steps,
        tasks_per_step=tasks_per_step,
        shots=shots,
        queries=queries,
        seed=seed,
        test_tasks=test_tasks,
    )
    distribution = _tasks(tasks)
    methods = _methods(meta, rivals)
    game = _gan(gan, distribution, seed)

    def compile_batch(method: Meta | RL2, batch: int) -> Engine:
        return compile_engine(
            game,
            fakes=batch,
            reals=batch,
            **method.inner_loop(),
            engine=engine,
            device=device,
            threads=threads,
        )

    configs = [method.to_config() for method in methods]
    named = dict(zip(distinct_names(configs), methods, strict=True))
    engines = _engines(
        compile_batch, named, {"tasks_per_step": tasks_per_step, "shots": shots, "queries": queries}
    )
    own = engines.adapt[methods[0].name]
    _require_shape(own, distribution)
    settings = Settings(
        tasks=distribution.name,
        fingerprint=distribution.fingerprint,
        gan=gan_to_config(game),
        methods=configs,
        steps={name: _steps(method, methods[0], steps) for name, method in named.items() if method.trains},
        tasks_per_step=tasks_per_step,
        shots=shots,
        queries=queries,
        seed=seed,
        test_tasks=test_tasks,
        engine=own.name,
        device=str(own.device),
        controller=None if recipe is None else recipe.to_config(),
    )
    with _folder(out) as folder, one_torch_thread(own):
        if folder is not None:
            _prepare(folder, settings, resume)
        trainer = Trainer(
            settings,
            distribution,
            methods,
            engines,
            game.parameters_vector(),
            folder=folder,
            callbacks=callbacks,
            show=progress,
        )
        resumed, learned = trainer.restore(), None
        summary = None if folder is None or not resumed else read_json(folder.path / SUMMARY)
        if summary is None:
            _announce(trainer, own, distribution, resumed=resumed, show=progress)
            trainer.run()
            setting = None if recipe is None else _setting(recipe, trainer, distribution, compile_batch)
            if setting is not None:
                learned = train_controller(
                    setting, folder=None if folder is None else folder.path, show=progress
                )
                if learned.phi is not None:  # all are compared from where the run's adaptation starts now
                    setting = replace(setting, phi=learned.phi)
            summary = finish(
                trainer, distribution, since=started, show=progress, setting=setting, controller=learned
            )
        else:
            say(f"the run in {out} is finished; nothing to do", show=progress)
            learned = None if recipe is None or folder is None else Controller.load(folder.path / CONTROLLER)
        return _run(trainer, game, summary, folder, threads, learned)


def _recipe(controller: RL2 | str | None) -> RL2 | None:
    if controller is None or isinstance(controller, RL2):
        return controller
    if controller != "rl2":
        raise ValueError(f"expected controller=None, 'rl2' or a pymgan.RL2(...), got {controller!r}")
    return RL2()


def _setting(
    recipe: RL2, trainer: Trainer, tasks: TaskDistribution, compile_batch: Callable[[RL2, int], Engine]
) -> Setting:
    """Where the controller learns and is judged: from the parameters that the run's own method has found."""
    settings = trainer.settings
    own = trainer.learner(settings.metas()[0].name)
    return Setting(
        engine=compile_batch(recipe, settings.shots),
        tasks=tasks,
        phi=own.average if own else trainer.initial,
        recipe=recipe,
        shots=settings.shots,
        queries=settings.queries,
        seed=settings.seed,
        test_tasks=settings.test_tasks,
    )


def _tasks(tasks: TaskDistribution | str | None) -> TaskDistribution:
    from .tasks import TaskDistribution, get

    if tasks is None or isinstance(tasks, str):
        return get(tasks or "glyphs")
    if not isinstance(tasks, TaskDistribution):
        raise TypeError(
            f"expected a pymgan.tasks.TaskDistribution or the name of one, got {type(tasks).__name__}; "
            "pymgan.tasks.from_arrays makes one of a list of arrays"
        )
    return tasks


def _gan(gan: GAN | str | None, tasks: TaskDistribution, seed: int) -> GAN:
    if gan is None or isinstance(gan, str):
        return make(gan or "mlp", tasks.sample_shape, seed=seed)
    if not isinstance(gan, GAN):
        raise TypeError(
            f"expected gan to be a pymgan.GAN or the name of an architecture, got {type(gan).__name__}"
        )
    return gan


# What rivals that are given by name take over.
SHARED = ("inner_steps", "play", "inner_optimiser", "inner_momentum", "inner_betas", "inner_eps")


def _methods(meta: Meta | str, rivals: Sequence[Meta | str]) -> list[Meta]:
    """The run's own method and its rivals, which take the same inner steps."""
    own = method_by_name(meta) if isinstance(meta, str) else meta
    if not isinstance(own, Meta):
        raise TypeError(f"expected meta to be a pymgan.MAML(...) or another method, got {type(own).__name__}")
    methods = [own]
    if isinstance(rivals, str):
        raise TypeError(f"expected rivals as a sequence of methods or names, got the string {rivals!r}")
    for rival in rivals:
        shared = {name: getattr(own, name) for name in SHARED}
        value = method_by_name(rival, **shared) if isinstance(rival, str) else rival
        if not isinstance(value, Meta):
            raise TypeError(f"expected rivals to be methods or names, got {type(value).__name__}")
        if value.inner_steps != own.inner_steps:
            raise ValueError(
                f"expected rivals with the same inner_steps = {own.inner_steps}, got "
                f"{value.inner_steps} in {value.name}"
            )
        if isinstance(rival, str) and rival in [method.name for method in methods]:
            continue  # so that the default rivals go with every meta
        methods.append(value)
    return methods


def _engines(
    compile_batch: Callable[[Meta, int], Engine], methods: dict[str, Meta], counts: dict[str, int]
) -> Engines:
    """Engines of every method by name, for adaptation and for meta-steps; equal ones are compiled once."""
    known: dict[tuple[Any, ...], Engine] = {}

    def get(method: Meta, batch: int) -> Engine:
        key = (*method.inner_loop().values(), batch)
        if key not in known:
            known[key] = compile_batch(method, batch)
        return known[key]

    return Engines(
        adapt={name: get(method, counts["shots"]) for name, method in methods.items()},
        step={name: get(method, method.step_batch(**counts)) for name, method in methods.items()},
    )


def _require_shape(engine: Engine, tasks: TaskDistribution) -> None:
    if tuple(engine.sample) != tuple(tasks.sample_shape):
        raise ValueError(
            f"expected a generator of samples {list(tasks.sample_shape)} for the tasks {tasks.name!r}, "
            f"got {list(engine.sample)}; "
            "change its last layers"
        )


def _steps(method: Meta, own: Meta, steps: int) -> int:
    """Steps of a method in about the wall time of `steps` of the run's own."""
    if method is own:
        return steps
    return max(1, round(steps * RIVAL_STEPS.get(method.name, 1.0) / RIVAL_STEPS.get(own.name, 1.0)))


@contextlib.contextmanager
def _folder(out: str | os.PathLike[str] | None) -> Iterator[RunFolder | None]:
    if out is None:
        yield None
        return
    with RunFolder(out) as folder:
        yield folder


def _prepare(folder: RunFolder, settings: Settings, resume: bool) -> None:
    """Write config.json, or check that the run in the folder is this one."""
    config = folder.config()
    started = (folder.path / CHECKPOINT).exists()
    if config is None and started:
        raise CheckpointError(f"{folder.path} holds a checkpoint but no config.json; choose another out=")
    if config is None or not started:  # also after a start that ended before its first checkpoint
        folder.write_json("config.json", settings.to_config())
        return
    if not resume:
        raise FileExistsError(f"{folder.path} holds a run already; choose another out=, or resume it")
    settings.require_same(Settings.from_config(config, str(folder.path / "config.json")), str(folder.path))


def _announce(
    trainer: Trainer, engine: Engine, tasks: TaskDistribution, *, resumed: bool, show: bool
) -> None:
    """Say what will run, where, for how long and in how much memory, before it starts."""
    if not show:
        return
    settings = trainer.settings
    say(
        f"pymgan: {settings.tasks} ({', '.join(map(str, tasks.sample_shape))}), {engine.parameters:,} "
        "parameters, "
        f"engine {engine.name} on {settings.device}"
        + (f", {engine.threads} threads" if engine.threads > 1 else "")
    )
    seconds, memory = trainer.estimate()
    left = ", ".join(
        f"{learner.name} {learner.step}/{settings.steps[learner.name]}" for learner in trainer.learners
    )
    say(
        f"{'resuming: ' if resumed else ''}{left} steps; about {duration(seconds)} and "
        f"{bytes_text(memory)} of memory"
    )


def _run(
    trainer: Trainer,
    gan: GAN,
    summary: dict[str, Any],
    folder: RunFolder | None,
    threads: int | None,
    controller: Controller | None,
) -> Run:
    own = trainer.settings.metas()[0]
    learner = trainer.learner(own.name)
    return Run(
        gan,
        trainer.settings,
        parameters=learner.average if learner else trainer.initial,
        raw=learner.parameters.clone() if learner else trainer.initial,
        rates=learner.inner_rates.clone() if learner else own.rates(),
        history=trainer.history,
        summary=summary,
        path=folder.path if folder else None,
        threads=threads,
        controller=controller,
    )


# What the command line shows as its defaults: those of the function above, and no second copy.
DEFAULTS: dict[str, Any] = {
    name: item.default for name, item in inspect.signature(train).parameters.items()
} | {"tasks": "glyphs"}
