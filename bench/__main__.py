"""Every case, engine and peer, one table: in one process on the CPU, on a GPU (--device cuda) each in one of its own.

Beside it: ``python -m bench setup`` installs the peers, ``compare OLD NEW`` looks for a slowdown, ``scaling`` varies one size
at a time, ``count`` counts instructions, ``once`` makes a single call, ``counters`` has ncu read a GPU's counters of such calls,
``device`` builds, tests and measures on a machine with a GPU; each says more with --help.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from . import machine

if TYPE_CHECKING:
    from .cases import Case
    from .row import Row

COMMANDS = ("setup", "compare", "scaling", "count", "once", "counters", "device")
DEVICES = ("cpu", "cuda")
LIMITS = {"cpu": (60.0, 60.0), "cuda": (3.0, 60.0)}  # seconds: --limit, --first-limit; device time is short


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code: 1 when one of our engines failed, was wrong or was not reached, so that a script notices."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] and argv[0] in COMMANDS:
        # Imported when called for: torch must not start its threads before the cores are chosen.
        command = importlib.import_module(f".{argv[0]}", __package__)
        return int(command.main(argv[1:]))

    parser = _parser()
    args = parser.parse_args(argv)
    check_threads(parser, args.threads)
    check_positive(parser, args, "rounds")
    if args.budget is not None and args.device == "cpu":
        parser.error("--budget: expected --device cuda beside it, got cpu, where everyone is run in turns")

    machine.use_cores(args.threads)
    # JAX would take three quarters of a GPU's memory at its first call, and torch needs some in the same process. Its allocator
    # is left as it is: the "platform" one asks the driver for every buffer, within the calls that are timed.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    check_device(parser, args.device)
    import torch

    from . import peers
    from .row import write_json

    torch.set_num_threads(args.threads)
    cases = chosen(parser, args)
    for name in (p.partition(":")[0] for p in args.peer or () if p != "none"):
        if name not in peers.PEERS:
            parser.error(f"--peer: expected one of {', '.join(peers.PEERS)}, got {name}")
    if args.profile:
        args.profile.mkdir(parents=True, exist_ok=True)

    line = shlex.join(["python", "-m", "bench", *argv])
    args.engine = args.engine or (["cpu"] if args.device == "cpu" else available(parser))

    def keep(rows: list[Row]) -> None:
        """Whenever there are more: a run that is cut off loses nothing that it had."""
        for row in rows:
            row.commit = args.commit or row.commit
        if args.json:
            write_json(args.json, [row.as_dict() for row in rows])

    with machine.empty_caches():
        rows = (_on_cpu if args.device == "cpu" else _on_cuda)(args, cases, line, keep)
    first = rows[0]
    print(f"{first.device}, {args.threads} threads, commit {first.commit or 'unknown'}: {first.command}")
    ours = [r for r in rows if r.engine not in peers.PEERS]
    return 1 if any(r.median_ms is None for r in ours) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_cases(parser)
    parser.add_argument(
        "--peer",
        action="append",
        metavar="ID[:SETTING]",
        help="repeatable, or none; a setting is tried alone; default: all, on cuda those of bench/peers with usual settings",
    )
    add_pass(parser)
    parser.add_argument("--rounds", type=int, default=10, help="turns of each (default: %(default)s)")
    add_threads(parser)
    for option, index, what in (
        ("--limit", 0, "seconds of turns of each"),
        ("--first-limit", 1, "seconds for the first call of each setting, compiling included"),
    ):
        cpu, cuda = (LIMITS[device][index] for device in DEVICES)
        parser.add_argument(option, type=float, help=f"{what} (default: {cpu:g}, on cuda {cuda:g})")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows there")
    parser.add_argument(
        "--profile",
        type=Path,
        metavar="DIR",
        help="there, of each of our engines, a chrome trace of one call and, on cuda, where ncu can read them, hardware counters",
    )
    parser.add_argument("--commit", metavar="HASH", help="of a checkout without git; default: what git says")
    return parser


def _on_cpu(
    args: argparse.Namespace,
    cases: list[Case],
    command: str,
    keep: Callable[[list[Row]], None],
) -> list[Row]:
    """Everyone on one case after the other, in turns."""
    from . import harness, peers
    from .row import table

    limit, first_limit = _limits(args)
    rows: list[Row] = []
    for case in cases:
        new = harness.run_case(
            case,
            args.which,
            engines=args.engine,
            peer_names=[p for p in (args.peer or list(peers.PEERS)) if p != "none"],
            rounds=args.rounds,
            threads=args.threads,
            limit=limit,
            first_limit=first_limit,
            command=command,
            say=_say,
            storage=args.storage,
        )
        rows += new
        keep(rows)
        print(table(new) + "\n", flush=True)
        for row in new[: len(args.engine)] if args.profile else ():
            _say(f"{case.name}: {row.engine}: {_trace(args, case, row)}")
    return rows


def _trace(args: argparse.Namespace, case: Case, row: Row) -> str:
    """Of an engine on the CPU that was timed; where it went."""
    from . import accelerator
    from .probe import Entry

    if row.median_ms is None:
        return "no trace: it was not timed"
    entry = Entry(case, args.which, args.threads, engine=row.engine, storage=args.storage)
    step, _ = entry.build(case.problem())
    step.run()
    path: Path = args.profile / f"{entry.slug()}.trace.json"
    accelerator.trace(step.run, "cpu", path)
    return f"trace: {path.name}"


def _on_cuda(
    args: argparse.Namespace,
    cases: list[Case],
    command: str,
    keep: Callable[[list[Row]], None],
) -> list[Row]:
    """Everyone in a process of its own; counters of our engines last."""
    from . import alone, counters
    from .child import Budget
    from .probe import Entry
    from .row import DEVICE_COLUMNS, table

    limit, first_limit = _limits(args)
    budget = Budget(args.budget)
    settings = alone.Settings(
        device=args.device,
        which=args.which,
        threads=args.threads,
        storage=args.storage,
        rounds=args.rounds,
        limit=limit,
        first_limit=first_limit,
        command=command,
        commit=args.commit or machine.commit(),
        traces=args.profile,
    )
    groups = alone.run(
        cases,
        settings,
        engines=args.engine,
        peer_names=None if args.peer is None else [p for p in args.peer if p != "none"],
        budget=budget,
        say=_say,
        keep=keep,
    )
    rows = [row for group in groups for row in group]
    keep(rows)
    for group in groups:
        print(table(group, DEVICE_COLUMNS) + "\n", flush=True)
    print(alone.ceilings_line(rows))
    if args.profile:
        entries = [
            Entry(case, args.which, args.threads, args.device, engine=row.engine, storage=args.storage)
            for case, group in zip(cases, groups, strict=True)
            for row in group[: len(args.engine)]
            if row.median_ms is not None
        ]
        counters.read_all(entries, args.profile, budget)
    return rows


def available(parser: argparse.ArgumentParser) -> list[str]:
    """Our engines that run on a CUDA device here."""
    from pymgan.engine import engines

    known = {info.name: info for info in engines() if info.name in ("cuda", "triton")}
    found = [name for name, info in known.items() if info.available]
    if not found:
        reasons = "; ".join(f"{name}: {info.reason}" for name, info in known.items())
        parser.error(f"--engine: expected one that runs on a CUDA device, got none ({reasons})")
    return found


def _limits(args: argparse.Namespace) -> tuple[float, float]:
    limit, first = LIMITS[args.device]
    return (
        limit if args.limit is None else args.limit,
        first if args.first_limit is None else args.first_limit,
    )


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def add_cases(parser: argparse.ArgumentParser) -> None:
    """The options that say who is run, on what, and how long."""
    parser.add_argument("--case", action="append", metavar="NAME", help="repeatable; default: all")
    parser.add_argument(
        "--engine",
        action="append",
        metavar="NAME",
        help="of ours; repeatable; default: cpu, or those of cuda and triton that this machine can run; cuda:tf32, "
        "cuda:bf16, triton:tf32 and triton:bf16 are the same with products of that precision",
    )
    parser.add_argument(
        "--budget",
        type=float,
        metavar="SECONDS",
        help="with --device cuda, for the whole run: who is not reached is noted; default: none",
    )


def chosen(parser: argparse.ArgumentParser, args: argparse.Namespace) -> list[Case]:
    """The cases that `add_cases` and `add_pass` were told; ends the program (exit code 2) on one that does not exist."""
    from .cases import CASES, select

    check_positive(parser, args, "steps", "tasks")
    names = args.case or list(CASES)
    for name in names:
        if name not in CASES:
            parser.error(f"--case: expected one of {', '.join(CASES)}, got {name}")
    return select(names, args.device, tasks=args.tasks, steps=args.steps)


def check_positive(parser: argparse.ArgumentParser, args: argparse.Namespace, *options: str) -> None:
    """Ends the program (exit code 2) on a number below 1."""
    for option in options:
        value = getattr(args, option)
        if value is not None and value < 1:
            parser.error(f"--{option}: expected at least 1, got {value}")


def add_pass(parser: argparse.ArgumentParser, device: str = "cpu") -> None:
    """The options that say what is computed, and where."""
    parser.add_argument(
        "--device",
        choices=DEVICES,
        default=device,
        help="with cuda, cases have more tasks (default: %(default)s)",
    )
    parser.add_argument(
        "--pass",
        dest="which",
        choices=("meta", "first", "adapt"),
        default="meta",
        help="second-order meta-step, first-order meta-step, inner steps alone (default: %(default)s)",
    )
    parser.add_argument("--tasks", type=int, metavar="T", help="default: the case's on that device")
    parser.add_argument("--steps", type=int, metavar="K", help="inner steps; default: the case's")
    parser.add_argument(
        "--storage", default="auto", metavar="MODE", help="of our engines: all, phi, every:S, nested"
    )


def check_device(parser: argparse.ArgumentParser, device: str) -> None:
    """Ends the program (exit code 2) where `device` is "cuda" and torch sees none."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        parser.error(f"--device: expected cpu, got cuda, and torch {torch.__version__} sees no CUDA device")


def add_threads(parser: argparse.ArgumentParser) -> None:
    """The option that every command which times has."""
    parser.add_argument(
        "--threads", type=int, default=machine.cores(), help="cores for each (default: %(default)s)"
    )


def check_threads(parser: argparse.ArgumentParser, threads: int) -> None:
    """Ends the program (exit code 2) on a number of cores that this process does not have."""
    if not 1 <= threads <= machine.cores():
        parser.error(f"--threads: expected 1 to {machine.cores()}, the cores of this process, got {threads}")


if __name__ == "__main__":
    sys.exit(main())
