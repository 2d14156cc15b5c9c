"""The end of a run: fine-tuning rates, the evaluation on test classes, summary.json, samples.png."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from torch import Tensor

from . import metrics, pictures
from ._version import __version__
from .evaluate import Contender, Scores, choose_rates, evaluate, generate_after, nearest_queries
from .folder import SUMMARY, jsonable
from .loop import TEST, draw
from .progress import say
from .rl2 import picture
from .rl2.comparison import to_json
from .rl2.studies.gan import AGAINST, compare, grid_winners

if TYPE_CHECKING:
    from .loop import Trainer
    from .rl2 import Controller
    from .rl2.comparison import Outcome
    from .rl2.studies.gan import Setting
    from .tasks import TaskBatch, TaskDistribution

__all__ = ["finish", "table"]

PICTURED = 6  # test classes in samples.png
SHOWN = 8  # samples of each

_TITLES = {
    "before": "before",
    "after": "after",
    "joint": "joint",
    "reptile": "Reptile",
    "scratch": "scratch",
    "maml": "MAML",
}


def finish(
    trainer: Trainer,
    tasks: TaskDistribution,
    *,
    since: float,
    show: bool,
    setting: Setting | None = None,
    controller: Controller | None = None,
) -> dict[str, Any]:
    """Evaluate every method on tasks of the test classes; writes summary.json, then samples.png, and returns
    the summary. A number that is not finite is None in it, as JSON has no other word.

    Fine-tuning rates of rivals are chosen on the validation classes, of all pairs of a small grid. The run's
    own method adapts with the rates that it was meta-trained with, as `Run.adapt` does.

    Args:
        since: `time.monotonic()` at the start of this session.
        setting, controller: what the run's controller was trained for, and it; controller.png and a comparison with fixed
            schedules are of them.
    """
    settings, folder = trainer.settings, trainer.folder
    say(
        "choosing the rivals' fine-tuning rates on validation classes",
        show=show and len(settings.methods) > 1,
    )
    contenders, chosen = _contenders(trainer)
    if setting is not None and controller is not None:
        steered = Contender("controller", setting.engine, setting.phi, None, controller)
        contenders.insert(2, steered)
    test = tasks.split("test")
    batch = draw(test, settings, TEST, count=settings.test_tasks)
    say(f"evaluating on {len(batch.ids)} tasks of test classes", show=show)
    summary: dict[str, Any] = {
        "test": {"tasks": len(batch.ids), **evaluate(contenders, batch, seed=settings.seed)}
    }
    summary["real_queries"] = {"nearest_support": metrics.summarise(nearest_queries(batch))}
    del batch  # the tasks of one evaluation in memory at a time
    for name, variant in test.variants().items():
        other = draw(variant, settings, TEST, count=settings.test_tasks)
        summary[f"test_{name}"] = {"tasks": len(other.ids), **evaluate(contenders, other, seed=settings.seed)}
        del other
    outcomes: dict[str, Outcome] = {}
    if setting is not None and controller is not None:
        outcomes = _compare_schedules(setting, controller, show=show)
        summary["controller"] = to_json(outcomes, AGAINST)
    trained = trainer.seconds()
    summary |= {
        "fine_tuning_rates": chosen,
        "engine": settings.engine,
        "seed": settings.seed,
        "version": __version__,
        "settings": settings.to_config()["settings"],
        "train_s": trained,
        "wall_s": round(max(time.monotonic() - since, sum(trained.values())), 3),
    }
    summary = jsonable(summary)
    if folder is not None:
        # Before the pictures: whatever becomes of them, the run is finished.
        folder.write_json(SUMMARY, summary)
        shown = draw(test, settings, TEST, count=PICTURED)
        draw_samples(folder.path / "samples.png", contenders, shown, seed=settings.seed)
        if controller is not None and outcomes:
            picture.draw(folder.path / "controller.png", outcomes, controller.controls)
    return summary


def _compare_schedules(setting: Setting, controller: Controller, *, show: bool) -> dict[str, Outcome]:
    """The controller beside the best constant schedule and chance."""
    winners = grid_winners(setting, shapes=("constant",), said=lambda text: say(text, show=show))
    return compare(setting, {"controller": controller}, winners)


def _contenders(trainer: Trainer) -> tuple[list[Contender], dict[str, Any]]:
    """Rows of the comparison in the order of the picture, and what is known about their rates."""
    settings = trainer.settings
    (own_name, first), *others = zip(settings.names, settings.metas(), strict=True)
    own = trainer.learner(own_name)
    start = own.average if own else trainer.initial
    rates = own.inner_rates if own else first.rates()
    engine = trainer.engines.adapt[own_name]
    contenders = [Contender("before", engine, start, None), Contender("after", engine, start, rates)]
    chosen: dict[str, Any] = {}
    for name, method in others:
        learner = trainer.learner(name)
        phi = learner.average if learner else trainer.initial
        engine = trainer.engines.adapt[name]
        best, value = choose_rates(engine, phi, method.inner_steps, trainer.validation, seed=settings.seed)
        contenders.append(Contender(name, engine, phi, best))
        chosen[name] = {
            "generator": float(best[0, 0]),
            "discriminator": float(best[0, 1]),
            "validation_energy": value,
        }
    return contenders, chosen


def draw_samples(path: Any, contenders: list[Contender], batch: TaskBatch, *, seed: int) -> None:
    """samples.png: support, before adaptation, after, each rival, real queries."""
    panels: list[tuple[str, Tensor]] = [("support", batch.support[:, :SHOWN])]
    for contender in contenders:
        fake, _ = generate_after(contender, batch, seed=seed, samples=SHOWN)
        kind, *differing = contender.name.split(" ")
        panels.append(("\n".join([_TITLES.get(kind, kind), *differing]), fake.cpu().float()))
    panels.append(("real queries", batch.query[:, :SHOWN]))
    pictures.comparison(path, panels, [str(name) for name in batch.classes])


def table(summary: dict[str, Any]) -> str:
    """The test scores as a table a person can read."""
    scores: dict[str, Scores] = {k: v for k, v in summary["test"].items() if k != "tasks"}
    names = list(next(iter(scores.values())))
    width = max(10, *(len(method) + 2 for method in scores))
    lines = ["".join([f"{'method':<{width}}", *(f"{name:>24}" for name in names)])]
    for method, values in scores.items():
        cells = [f"{_number(values[name]['mean'])} ± {_number(values[name]['ci95'])}" for name in names]
        lines.append("".join([f"{method:<{width}}", *(f"{cell:>24}" for cell in cells)]))
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4f}"
