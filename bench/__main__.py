"""Every case, engine and peer in one process, one table. ``python -m bench setup`` installs the peers."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from pathlib import Path


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code: 1 when one of our engines failed or was wrong, so that a script notices."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["setup"]:
        from . import setup

        return setup.main()

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--case", action="append", metavar="NAME", help="repeatable; default: all")
    parser.add_argument("--engine", action="append", metavar="NAME", help="of ours; repeatable; default: cpu")
    parser.add_argument("--peer", action="append", metavar="ID", help="repeatable, or none; default: all")
    parser.add_argument("--rounds", type=int, default=10, help="turns of each (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=cores, help="cores for each (default: %(default)s)")
    parser.add_argument(
        "--limit", type=float, default=60, help="seconds of turns of each (default: %(default)s)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows there")
    args = parser.parse_args(argv)
    if not 1 <= args.threads <= cores:
        parser.error(f"--threads: expected 1 to {cores}, the cores of this process, got {args.threads}")
    if args.rounds < 1:
        parser.error(f"--rounds: expected at least 1, got {args.rounds}")

    # Before any library starts its threads: they all size their pools by what the process may use.
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.threads])
    import torch

    from . import harness, peers
    from .cases import CASES
    from .row import table

    torch.set_num_threads(args.threads)
    cases = args.case or [name for name, case in CASES.items() if case.supported]
    wanted = [p for p in (args.peer or list(peers.PEERS)) if p != "none"]
    for option, names, known in (("--case", cases, CASES), ("--peer", wanted, peers.PEERS)):
        for name in names:
            if name not in known:
                parser.error(f"{option}: expected one of {', '.join(known)}, got {name}")

    rows = []
    for name in cases:
        new = harness.run_case(
            CASES[name],
            engines=args.engine or ["cpu"],
            peer_names=wanted,
            rounds=args.rounds,
            threads=args.threads,
            limit=args.limit,
            command=shlex.join(["python", "-m", "bench", *argv]),
            say=lambda line: print(line, file=sys.stderr, flush=True),
        )
        rows += new
        print(table(new) + "\n", flush=True)
    first = rows[0]
    print(f"{first.device}, {args.threads} threads, commit {first.commit or 'unknown'}: {first.command}")
    if args.json:
        args.json.write_text(json.dumps([row.as_dict() for row in rows], indent=1) + "\n")
    ours = [r for r in rows if r.engine not in peers.PEERS and CASES[r.case].supported]
    return 1 if any(r.median_ms is None for r in ours) else 0


if __name__ == "__main__":
    sys.exit(main())
