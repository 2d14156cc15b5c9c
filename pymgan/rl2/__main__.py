"""`python -m pymgan.rl2 bandit | mdp | minimax | gan`: what RL² learns, beside what there was before."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from .controller import GAN_PPO, RL2, Controller
from .learn import Update
from .studies import bandit, gan, mdp, minimax

NUMBERS: dict[ModuleType, dict[str, int]] = {
    bandit: {"arms": 5, "pulls": 10, "problems": 20_000, "hidden": 64},
    mdp: {"states": 10, "actions": 5, "horizon": 10, "episodes": 10, "problems": 1000, "hidden": 128},
    minimax: {"problems": 2048, "hidden": 64, "controllers": 1},
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one study, print its table, and with --json its numbers as the last line."""
    options = vars(_parser().parse_args(arguments))
    run: Callable[..., tuple[dict[str, Any], str]] = options.pop("run_study")
    as_json = options.pop("json")
    if options["threads"] is not None:
        torch.set_num_threads(options["threads"])
    try:
        result, table = run(**options)
    except (ValueError, OSError) as error:
        print(f"pymgan.rl2: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    print(table)
    if as_json:
        print(json.dumps(result))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pymgan.rl2", description=__doc__)
    commands = parser.add_subparsers(title="studies", required=True, metavar="bandit | mdp | minimax | gan")
    for study, numbers in NUMBERS.items():
        command = _add(commands, study)
        for name, value in {**numbers, "updates": study.UPDATES, "seed": 0}.items():
            said, default = "by default %(default)s", value
            if value is None:  # the study's own
                said, default = "by default 300, or 600 where shorter trials come first", argparse.SUPPRESS
            command.add_argument("--" + name, type=int, default=default, help=said)
        command.set_defaults(run_study=_study_of(study))
    recipe = RL2()
    command = _add(commands, gan)
    add = command.add_argument
    add("--run", required=True, help="run folder of pymgan train: its GAN, parameters and tasks")
    add(
        "--controller",
        default=None,
        help="a controller.safetensors, of this run or another; trained anew without",
    )
    add(
        "--sources",
        nargs="+",
        default=(),
        metavar="RUN",
        help="run folders to learn from instead, with --spread; judged on --run, from the reference rates",
    )
    add(
        "--folders",
        nargs="+",
        default=(),
        metavar="FOLDER",
        help="of images, that the runs were trained on, where they are not in the working directory",
    )
    for name in ("steps", "updates", "tasks_per_update", "copies"):
        add("--" + name.replace("_", "-"), type=int, default=getattr(recipe, name), help="of pymgan.RL2")
    add(
        "--belief",
        type=float,
        default=recipe.ppo.belief,
        help="how much the hidden state has to tell the distance to validation samples, which it does not see",
    )
    add("--spread", type=float, default=recipe.spread, help="log range in which every task's rates begin")
    add("--test-tasks", type=int, default=gan.TEST_TASKS, help="that all are compared on")
    add("--seed", type=int, default=0, help="of tasks, weights and noise")
    add("--out", default=None, help="folder for controller.safetensors and controller.png; not kept without")
    command.set_defaults(run_study=_gan)
    return parser


def _add(commands: Any, study: ModuleType) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        study.__name__.rsplit(".", 1)[-1],
        help=str(study.__doc__).splitlines()[0],
        description=study.__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = command.add_argument
    add("--threads", type=int, default=None, help="of torch and of the engine; all cores by default")
    add("--json", action="store_true", help="the numbers as one JSON object in the last line")
    add("--progress", action=argparse.BooleanOptionalAction, default=True, help="a bar on stderr")
    return command


def _study_of(study: ModuleType) -> Callable[..., tuple[dict[str, Any], str]]:
    def run(*, progress: bool, threads: int | None, **options: Any) -> tuple[dict[str, Any], str]:
        del threads  # torch's, which `main` has set
        with _Bar(study.__name__.rsplit(".", 1)[-1], show=progress) as bar:
            result = study.study(**options, callback=bar.update)
        return result, study.table(result)

    return run


def _gan(
    *,
    run: str,
    controller: str | None,
    sources: Sequence[str],
    folders: Sequence[str],
    belief: float,
    spread: float,
    test_tasks: int,
    seed: int,
    out: str | None,
    progress: bool,
    threads: int | None,
    **numbers: Any,
) -> tuple[dict[str, Any], str]:
    """A run's GAN under a controller, a new one or one of a file, beside fixed schedules."""
    from .. import run as runs
    from ..engine import compile as compile_engine
    from ..tasks import of_run
    from ..threads import one_torch_thread
    from . import picture

    if controller is not None and sources:
        raise ValueError("[rl2] expected --controller or --sources, got both")
    given = None if controller is None else Controller.load(controller)
    recipe = given.recipe if given else RL2(ppo=replace(GAN_PPO, belief=belief), **numbers)
    recipe = replace(recipe, spread=spread)

    def setting_of(folder: str, *, wide: bool = True) -> gan.Setting:
        opened = runs.load(folder)
        settings = opened.settings
        tasks = of_run(settings.tasks, settings.fingerprint, opened.sample_shape, folders)
        engine = compile_engine(
            opened.gan,
            fakes=settings.shots,
            reals=settings.shots,
            **recipe.inner_loop(),
            engine=settings.engine,
            device=settings.device,
            threads=threads,
        )
        return gan.Setting(
            engine,
            tasks,
            opened.start,
            recipe,
            shots=settings.shots,
            seed=seed,
            test_tasks=test_tasks,
            wide=wide,
        )

    def say(text: str) -> None:
        if progress:
            print(text, file=sys.stderr)

    folder = None if out is None else Path(out)

    def keep(learned: Controller) -> None:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            learned.save(folder / "controller.safetensors")

    setting = setting_of(run, wide=not sources)
    teachers = [setting_of(each) for each in sources]
    with one_torch_thread(setting.engine), _Bar("controllers", show=progress) as bar:
        result, outcomes, _ = gan.study(
            setting, sources=teachers, controller=given, callback=bar.update, said=say, trained=keep
        )
    if folder is not None:
        picture.draw(folder / "controller.png", outcomes, recipe.controls)
    return result, gan.table(result["outcomes"])


class _Bar:
    """Updates done, the mean return, the time left."""

    def __init__(self, label: str, *, show: bool) -> None:
        from tqdm import tqdm

        self._bar: Any = tqdm(desc=label, unit="update", disable=not show, file=sys.stderr, mininterval=1.0)

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def update(self, said: Update) -> None:
        """One update more; a study that trains another policy begins anew."""
        if said.number == 0:
            self._bar.reset(said.updates)
        self._bar.set_postfix_str(f"return {said.mean_return:.3f}", refresh=False)
        self._bar.update(1)


if __name__ == "__main__":
    sys.exit(main())
