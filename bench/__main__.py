"""Every case, engine and peer in one process, one table.

Beside it: ``python -m bench setup`` installs the peers, ``compare OLD NEW`` looks for a slowdown, ``scaling`` varies one size
at a time, ``count`` counts instructions; each says more with --help.
"""

from __future__ import annotations

import argparse
import importlib
import shlex
import sys
from pathlib import Path

from . import machine

COMMANDS = ("setup", "compare", "scaling", "count")


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code: 1 when one of our engines failed or was wrong, so that a script notices."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] and argv[0] in COMMANDS:
        # Imported when called for: torch must not start its threads before the cores are chosen.
        command = importlib.import_module(f".{argv[0]}", __package__)
        return int(command.main(argv[1:]))

    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--case", action="append", metavar="NAME", help="repeatable; default: all")
    parser.add_argument("--engine", action="append", metavar="NAME", help="of ours; repeatable; default: cpu")
    parser.add_argument(
        "--peer",
        action="append",
        metavar="ID[:SETTING]",
        help="repeatable, or none; a setting is tried alone; default: all",
    )
    parser.add_argument(
        "--pass",
        dest="which",
        choices=("meta", "first", "adapt"),
        default="meta",
        help="second-order meta-step, first-order meta-step, inner steps alone (default: %(default)s)",
    )
    parser.add_argument("--rounds", type=int, default=10, help="turns of each (default: %(default)s)")
    add_threads(parser)
    parser.add_argument(
        "--limit", type=float, default=60, help="seconds of turns of each (default: %(default)s)"
    )
    parser.add_argument(
        "--first-limit",
        type=float,
        default=60,
        help="seconds for the first call of each setting, compiling included (default: %(default)s)",
    )
    parser.add_argument("--steps", type=int, metavar="K", help="inner steps; default: the case's")
    parser.add_argument(
        "--storage", default="auto", metavar="MODE", help="of our engines: all, phi, every:S, nested"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows there")
    args = parser.parse_args(argv)
    check_threads(parser, args.threads)
    for option, value in (("--rounds", args.rounds), ("--steps", args.steps)):
        if value is not None and value < 1:
            parser.error(f"{option}: expected at least 1, got {value}")

    machine.use_cores(args.threads)
    import torch

    from . import harness, peers
    from .cases import CASES
    from .row import Row, table, write_json

    torch.set_num_threads(args.threads)
    names = args.case or list(CASES)
    wanted = [p for p in (args.peer or list(peers.PEERS)) if p != "none"]
    ids = [p.partition(":")[0] for p in wanted]
    for option, given, known in (("--case", names, CASES), ("--peer", ids, peers.PEERS)):
        for name in given:
            if name not in known:
                parser.error(f"{option}: expected one of {', '.join(known)}, got {name}")

    def run(name: str) -> list[Row]:
        case = CASES[name]
        if args.steps:
            case = case.altered(inner_steps=args.steps)
        return harness.run_case(
            case,
            args.which,
            engines=args.engine or ["cpu"],
            peer_names=wanted,
            rounds=args.rounds,
            threads=args.threads,
            limit=args.limit,
            first_limit=args.first_limit,
            command=shlex.join(["python", "-m", "bench", *argv]),
            say=lambda line: print(line, file=sys.stderr, flush=True),
            storage=args.storage,
        )

    rows: list[Row] = []
    with machine.empty_caches():
        for name in names:
            new = run(name)
            rows += new
            print(table(new) + "\n", flush=True)
    first = rows[0]
    print(f"{first.device}, {args.threads} threads, commit {first.commit or 'unknown'}: {first.command}")
    if args.json:
        write_json(args.json, [row.as_dict() for row in rows])
    ours = [r for r in rows if r.engine not in peers.PEERS]
    return 1 if any(r.median_ms is None for r in ours) else 0


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
