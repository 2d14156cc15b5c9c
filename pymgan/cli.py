"""The command line: `pymgan train | adapt | sample | unrolled | env`, with the names and defaults of the Python
functions.

Exit codes: 0 done; 1 the run or pymgan itself failed; 2 something in the command or its files is not what it
should be; 130 stopped by Ctrl-C, after saving.
"""

from __future__ import annotations

import argparse
import sys
import traceback
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from ._version import __version__

if TYPE_CHECKING:
    from .gan import GAN
    from .meta import Meta
    from .tasks import TaskDistribution

__all__ = ["main"]

FAILED, BAD_INPUT, STOPPED = 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code. Never a traceback, except with --debug."""
    parser = _parser()
    options = parser.parse_args(arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter(
            "always", UserWarning
        )  # what pymgan has to say to the person who typed the command
        warnings.showwarning = _show_warning
        try:
            options.command(options)
        except KeyboardInterrupt as stop:
            print(str(stop) or "stopped; the same command goes on from the last checkpoint", file=sys.stderr)
            return STOPPED
        except BrokenPipeError:
            return FAILED
        except Exception as error:
            if options.debug:
                traceback.print_exc()
            print(f"pymgan: {_message(error)}", file=sys.stderr)
            return BAD_INPUT if _is_bad_input(error) else FAILED
    return 0


def _is_bad_input(error: Exception) -> bool:
    from .errors import FolderInUse

    return isinstance(
        error, (ValueError, TypeError, OSError, NotImplementedError, FolderInUse, ModuleNotFoundError)
    )


def _message(error: Exception) -> str:
    """One message for a person. OSErrors lose their number, errors that nobody foresaw say so."""
    if isinstance(error, OSError) and error.strerror:
        name = f": {error.filename}" if error.filename else ""
        return f"{error.strerror}{name}"
    text = str(error) or type(error).__name__
    if _is_bad_input(error) or isinstance(error, RuntimeError):
        return text
    return f"{type(error).__name__}: {text}\na bug in pymgan: please report what --debug prints"


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    print(f"pymgan: note: {message}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pymgan", description="Meta-learning for GANs through a compiled engine."
    )
    parser.add_argument("--version", action="version", version=f"pymgan {__version__}")
    parser.add_argument("--debug", action="store_true", help="print the traceback of an error")
    commands = parser.add_subparsers(
        title="commands", required=True, metavar="train | adapt | sample | unrolled | env"
    )
    _add_train(commands)
    _add_adapt(commands)
    _add_sample(commands)
    _add_unrolled(commands)
    env = commands.add_parser("env", help="versions, instruction sets, engines")
    env.set_defaults(command=_env)
    return parser


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Help with defaults, where there is one to show."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


_COUNTS = {
    "steps": "meta-steps; trained rivals take as many as fit into the same wall time",
    "tasks_per_step": "tasks in a meta-batch",
    "shots": "samples in a task's support set",
    "queries": "samples in a task's query set",
    "seed": "of initial weights, tasks and noise",
    "test_tasks": "tasks of test classes in the evaluation at the end",
}


def _add_train(commands: Any) -> None:
    from .gan import AUGMENTATIONS, LOSSES, PENALTIES
    from .tasks import NAMES
    from .train import DEFAULTS

    parser = commands.add_parser(
        "train",
        help="meta-learn a GAN, train its rivals beside it, evaluate all of them",
        description="Without arguments: MAML, Joint and Reptile on glyphs, evaluated on test classes "
        "with Scratch "
        "beside them. The same command again goes on where a run has stopped.",
        formatter_class=_Help,
    )
    add = parser.add_argument
    add(
        "--tasks",
        default=DEFAULTS["tasks"],
        help=f"{', '.join(NAMES)}, or a folder of folders of images (./NAME)",
    )
    add("--size", type=int, help="side in pixels of the images of a folder (default: 16)")
    add("--channels", type=int, choices=(1, 3), help="channels of the images of a folder (default: 1)")
    add(
        "--arch",
        default="mlp",
        help="networks: mlp, mlp:256,256 (hidden widths), dcgan, resnet, figr, dcgan:32 (channels)",
    )
    add("--loss", help=f"{', '.join(LOSSES)} (default: nonsaturating; figr: wasserstein)")
    add(
        "--penalty",
        metavar="KIND[:WEIGHT[:EVERY]]",
        help=f"of D: {', '.join(PENALTIES)}, or none (default: none; figr: wgan_gp:10)",
    )
    add("--augment", help=f"what D is given in training: some of {','.join(AUGMENTATIONS)}")
    add("--spectral-norm", action="store_true", help="of all layers of D (default: none)")
    add("--instance-noise", type=float, default=0.0, help="deviation of the noise on what D is given")
    _add_method(parser)
    add("--controller", choices=("none", "rl2"), default="none", help="of the inner loop, to be learned too")
    add("--rivals", default=",".join(DEFAULTS["rivals"]), help="methods to compare with, or none")
    for name, text in _COUNTS.items():
        add(_flag(name), type=int, default=DEFAULTS[name], help=text)
    add("--engine", default=DEFAULTS["engine"], help="auto, or one of pymgan env")
    add("--device", default=DEFAULTS["device"], help="auto, or a torch device")
    add("--threads", type=int, default=None, help="of the engine; all cores by default")
    add("--out", default=None, help="run folder; runs/TASKS by default")
    flag = argparse.BooleanOptionalAction
    add("--resume", action=flag, default=True, help="go on with a run that is in --out already")
    add("--progress", action=flag, default=True, help="progress bar and lines on stderr")
    parser.set_defaults(command=_train)


def _add_method(parser: argparse.ArgumentParser) -> None:
    """The fields of the `meta=` value that have a flag. None leaves the method's own default."""
    from .contract import OPTIMISERS
    from .meta import MAML, METHODS

    default = MAML()
    group = parser.add_argument_group("method")
    add = group.add_argument
    add("--meta", default=default.name, help=", ".join(METHODS))
    add("--order", type=int, choices=(1, 2), help=f"of maml's gradient (default: {default.order})")
    add("--objective", help=f"of maml: energy, game or joint (default: {default.objective})")
    add("--inner-steps", type=int, help=f"of an adaptation (default: {default.inner_steps})")
    add(
        "--inner-lr",
        type=float,
        nargs="+",
        metavar="RATE",
        help=f"of both, or of G and D (maml: {default.inner_lr})",
    )
    add("--inner-optimiser", choices=OPTIMISERS, help=f"(default: {default.inner_optimiser})")
    add(
        "--inner-momentum",
        type=float,
        help=f"of momentum and nesterov (default: {default.inner_momentum})",
    )
    add(
        "--inner-betas",
        type=float,
        nargs=2,
        metavar="BETA",
        help=f"of adam; the second of rmsprop too (default: {default.inner_betas[0]} {default.inner_betas[1]})",
    )
    add("--inner-eps", type=float, help=f"inside square roots (default: {default.inner_eps})")
    add("--outer-lr", type=float, help=f"of the outer Adam (maml: {default.outer_lr})")
    add("--play", choices=("simultaneous", "alternating"), help=f"of the players (default: {default.play})")


def _add_adapt(commands: Any) -> None:
    parser = commands.add_parser(
        "adapt", help="adapt a run to a folder of your own images", formatter_class=_Help
    )
    add = parser.add_argument
    add("--run", required=True, help="run folder of pymgan train")
    add("--images", required=True, help="folder of images of one class, not of folders of classes")
    add("--steps", type=int, default=None, help="inner steps; as meta-trained by default")
    add("--seed", type=int, default=0, help="of the noise")
    add("--n", type=int, default=64, help="samples to draw")
    add(
        "--out",
        default=None,
        help="folder for adapted.safetensors and samples.png; adapted/NAME in the run folder by default",
    )
    add("--threads", type=int, default=None, help="of the engine; all cores by default")
    parser.set_defaults(command=_adapt)


def _add_sample(commands: Any) -> None:
    parser = commands.add_parser(
        "sample",
        help="draw samples from adapted weights, or from a run before adaptation",
        formatter_class=_Help,
    )
    add = parser.add_argument
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--weights", help="a file that pymgan adapt wrote")
    source.add_argument("--run", help="a run folder: its meta-parameters, not adapted")
    add("--n", type=int, default=64, help="samples to draw")
    add("--seed", type=int, default=0, help="of the noise")
    add("--out", default="samples.png", help="picture (.png) or array (.npy)")
    parser.set_defaults(command=_sample)


def _add_unrolled(commands: Any) -> None:
    from .unrolled import INNER, OBJECTIVES
    from .unrolled_ring import Study

    default = Study()
    parser = commands.add_parser(
        "unrolled",
        help="plain and unrolled GANs on a ring of eight Gaussians",
        description="Trains the same GANs with each number of unrolled steps and counts the modes that they find.",
        formatter_class=_Help,
    )
    add = parser.add_argument
    add("--unrolled", type=int, nargs="+", metavar="K", default=default.unrolled, help="unrolled steps of D")
    add("--seeds", type=int, default=len(default.seeds), help="seeds 0, 1, ... of each")
    add("--steps", type=int, default=default.steps, help="of G, and as many of D")
    add("--batch", type=int, default=default.batch, help="real samples, and as many generated ones")
    add("--objective", choices=OBJECTIVES, default=default.objective, help="of G: L_G, or -L_D")
    add("--inner", choices=INNER, default=default.inner, help="what D's unrolled steps are made of")
    add("--threads", type=int, default=None, help="of the engine; all cores by default")
    add("--json", default=None, metavar="FILE", help="write settings and results there")
    add("--progress", action=argparse.BooleanOptionalAction, default=True, help="a bar on stderr")
    parser.set_defaults(command=_unrolled)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _gan(options: argparse.Namespace, shape: tuple[int, ...]) -> GAN:
    from .arch import make
    from .gan import Penalty
    from .spectral import normalise_all

    gan = make(options.arch, shape, loss=options.loss, seed=options.seed)
    if options.spectral_norm:
        normalise_all(gan.discriminator, seed=options.seed)
    augment = tuple(options.augment.split(",")) if options.augment else ()
    gan = replace(gan, augment=augment, instance_noise=options.instance_noise)
    if options.penalty is None:
        return gan
    kind, *numbers = options.penalty.split(":")
    try:
        weight, every = float(numbers[0]) if numbers else 1.0, int(numbers[1]) if numbers[1:] else 1
    except ValueError:
        numbers = [""] * 3
    if len(numbers) > 2:
        raise ValueError(f"expected --penalty KIND, KIND:WEIGHT or KIND:WEIGHT:EVERY, got {options.penalty}")
    return replace(gan, penalty=None if kind == "none" else Penalty(kind, weight, every))


def _train(options: argparse.Namespace) -> None:
    from .finish import table
    from .rl2.studies import gan
    from .train import train

    tasks = _distribution(options)
    rivals = [] if options.rivals in ("", "none") else options.rivals.split(",")
    out = options.out or Path("runs") / tasks.name
    run = train(
        tasks,
        _gan(options, tasks.sample_shape),
        meta=_meta(options),
        controller=None if options.controller == "none" else options.controller,
        rivals=rivals,
        steps=options.steps,
        tasks_per_step=options.tasks_per_step,
        shots=options.shots,
        queries=options.queries,
        seed=options.seed,
        test_tasks=options.test_tasks,
        engine=options.engine,
        device=options.device,
        threads=options.threads,
        out=out,
        resume=options.resume,
        progress=options.progress,
    )
    if run.summary is not None:  # always, for a run that ends
        print(table(run.summary))
        if "controller" in run.summary:
            print(gan.table(run.summary["controller"]))
    print(f"{out}/summary.json  {out}/samples.png")


def _distribution(options: argparse.Namespace) -> TaskDistribution:
    from . import tasks

    given = {name: getattr(options, name) for name in ("size", "channels")}
    given = {name: value for name, value in given.items() if value is not None}
    if options.tasks in tasks.NAMES:
        if given:
            raise ValueError(
                f"expected --size and --channels with a folder of images, got {_flag(next(iter(given)))} with the "
                f"built-in tasks {options.tasks}, whose samples have a shape of their own; leave it out, or give "
                f"a folder called so as ./{options.tasks}"
            )
    elif Path(options.tasks).is_dir():
        return tasks.from_folder(options.tasks, **given)
    return tasks.get(options.tasks)


def _meta(options: argparse.Namespace) -> Meta:
    """The `meta=` value: its own defaults, except for what was asked for."""
    from .meta import by_name

    names = (
        *("order", "objective", "inner_steps", "outer_lr", "play"),
        *("inner_optimiser", "inner_momentum", "inner_betas", "inner_eps"),
    )
    values = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    if options.inner_lr is not None:
        if len(options.inner_lr) > 2:
            raise ValueError(f"expected --inner-lr with one number or two, got {len(options.inner_lr)}")
        values["inner_lr"] = options.inner_lr[0] if len(options.inner_lr) == 1 else tuple(options.inner_lr)
    return by_name(options.meta, **values)


def _adapt(options: argparse.Namespace) -> None:
    from . import pictures
    from .run import load
    from .samples import image_format
    from .tasks import load_images

    run = load(options.run, threads=options.threads)
    images = load_images(options.images, *image_format(run.sample_shape))
    few = run.adapt(images, options.steps, seed=options.seed)
    out = (
        Path(options.out)
        if options.out
        else Path(options.run) / "adapted" / Path(options.images).resolve().name
    )
    _make_folder(out)
    few.save(out / "adapted.safetensors")
    samples = few.sample(options.n, seed=options.seed)
    before = run.before().sample(options.n, seed=options.seed)
    panels = [
        ("your images", images[:8].unsqueeze(0)),
        ("before", before[:8].unsqueeze(0)),
        ("after", samples[:8].unsqueeze(0)),
    ]
    pictures.comparison(out / "comparison.png", panels, [""])
    pictures.grid(out / "samples.png", samples)
    print(
        f"adapted to {len(images)} images: {out}/adapted.safetensors  {out}/samples.png  {out}/comparison.png"
    )


def _sample(options: argparse.Namespace) -> None:
    from . import pictures
    from .checkpoint import atomic_write
    from .run import FewShot, load

    out = Path(options.out)
    if out.suffix not in (".png", ".npy"):
        raise ValueError(f"expected --out to end in .png or .npy, got {out}")
    few = FewShot.load(options.weights) if options.weights else load(options.run).before()
    samples = few.sample(options.n, seed=options.seed)
    _make_folder(out.parent)
    if out.suffix == ".png":
        pictures.grid(out, samples)
    else:
        import io

        import numpy as np

        buffer = io.BytesIO()
        np.save(buffer, samples.numpy())
        atomic_write(out, buffer.getvalue())
    print(f"{len(samples)} samples: {out}")


def _unrolled(options: argparse.Namespace) -> None:
    import json
    from dataclasses import asdict

    from .checkpoint import atomic_write
    from .unrolled_ring import Study, table

    study = Study(
        unrolled=tuple(options.unrolled),
        seeds=tuple(range(options.seeds)),
        steps=options.steps,
        batch=options.batch,
        objective=options.objective,
        inner=options.inner,
        threads=options.threads,
    )
    outcomes = []
    for unrolled in study.unrolled:
        outcomes.append(study.run(unrolled, progress=options.progress))
        if options.json is not None:  # after each: a run that is stopped keeps what it has
            report = {"settings": study.to_config(), "outcomes": [asdict(outcome) for outcome in outcomes]}
            _make_folder(Path(options.json).parent)
            atomic_write(Path(options.json), (json.dumps(report, indent=1) + "\n").encode())
    print(table(outcomes))


def _make_folder(path: Path) -> None:
    from .checkpoint import cannot_write

    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error


def _env(_: argparse.Namespace) -> None:
    from .env import report

    print(report())
