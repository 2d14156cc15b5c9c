"""``python -m bench compare OLD NEW``: whether our engines have become slower between two files of rows (``--json``).

The rule. A row is *slower* when the two runs' ranges of times lie apart by more than `tolerance`:

    q20 of NEW > (1 + tolerance) * q80 of OLD

so four of five new calls took longer than four of five old ones, and then some. The quantiles are the noise within a run, which
widens the ranges by itself: a noisy run calls nothing slower. The tolerance is for what differs between two runs on one machine
and no quantile of either shows (where memory came to lie, the processor's clock). *Faster* is the same with OLD and NEW swapped.

Rows are the same when case, engine, pass, order, objective, tasks, threads and device are. A row that the other file lacks, that
was not timed, or that comes from another device is said, not compared. Peers are compared too, since they show what the machine
did meanwhile, but only a row of ours decides the exit code: 1 when one is slower, 2 when there was none of ours to compare.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple

from .peers import PEERS
from .row import markdown, number

KEY = ("case", "engine", "pass", "order", "objective", "tasks", "threads")
TIMES = ("median_ms", "q20_ms", "q80_ms")
Rows = dict[tuple[Any, ...], dict[str, Any]]


class Verdict(NamedTuple):
    """One line of the comparison."""

    key: tuple[Any, ...]
    old: dict[str, Any] | None
    new: dict[str, Any] | None
    says: str
    is_slower: bool = False
    is_compared: bool = False


def read(path: Path) -> Rows:
    """The rows of a file by what makes them the same, without the device.

    Raises:
        OSError: the file cannot be read.
        ValueError: it does not hold a list of rows, or two that are the same.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as problem:
        raise ValueError(f"{path}: expected JSON, got {problem}") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{path}: expected a list of rows, as --json writes it, got {type(rows).__name__}")
    found: Rows = {}
    for row in rows:
        if missing := [name for name in (*KEY, *TIMES, "device") if name not in row]:
            raise ValueError(f"{path}: expected rows with {', '.join(missing)}, got {', '.join(row)}")
        key = tuple(row[name] for name in KEY)
        if key in found:
            raise ValueError(f"{path}: expected one row of {_name(key)}, got two")
        found[key] = row
    return found


def compare(old: Rows, new: Rows, tolerance: float) -> list[Verdict]:
    """A verdict for each row of either."""
    return [_verdict(key, old.get(key), new.get(key), tolerance) for key in {**old, **new}]


def _verdict(
    key: tuple[Any, ...], old: dict[str, Any] | None, new: dict[str, Any] | None, tolerance: float
) -> Verdict:
    if old is None or new is None:
        return Verdict(key, old, new, f"only in {'NEW' if old is None else 'OLD'}")
    if old["device"] != new["device"]:
        return Verdict(key, old, new, f"other device: {old['device']}, then {new['device']}")
    for name, row in (("OLD", old), ("NEW", new)):
        if row["median_ms"] is None:
            return Verdict(key, old, new, f"not timed in {name}: {row.get('note', '')}")
    is_slower = new["q20_ms"] > (1 + tolerance) * old["q80_ms"]
    is_faster = old["q20_ms"] > (1 + tolerance) * new["q80_ms"]
    says = "slower" if is_slower else "faster" if is_faster else "same"
    return Verdict(key, old, new, says, is_slower, is_compared=True)


def table(verdicts: list[Verdict]) -> str:
    """Markdown, one line a verdict."""
    header = [
        "case",
        "pass",
        "engine",
        "threads",
        "old ms",
        "q20",
        "q80",
        "new ms",
        "q20",
        "q80",
        "new / old",
        "",
    ]
    lines = []
    for v in verdicts:
        case, engine, which, *_, threads = v.key
        times = [number(row[name] if row else None, 4) for row in (v.old, v.new) for name in TIMES]
        ratio = f"{v.new['median_ms'] / v.old['median_ms']:.3f}" if v.is_compared and v.old and v.new else ""
        lines.append([case, which, engine, str(threads), *times, ratio, v.says])
    return markdown(header, lines)


def main(argv: list[str]) -> int:
    """Returns 0, 1 when a row of ours is slower, 2 when no row of ours could be compared."""
    parser = argparse.ArgumentParser(
        prog="python -m bench compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("old", type=Path, metavar="OLD", help="a file that --json wrote")
    parser.add_argument("new", type=Path, metavar="NEW", help="a later one")
    parser.add_argument(
        "--tolerance", type=float, default=0.03, help="between two runs, a fraction (default: %(default)s)"
    )
    args = parser.parse_args(argv)
    if not args.tolerance >= 0:
        parser.error(f"--tolerance: expected a fraction from 0, got {args.tolerance}")
    try:
        verdicts = compare(read(args.old), read(args.new), args.tolerance)
    except (OSError, ValueError) as problem:
        parser.error(str(problem))
    print(table(verdicts) + "\n")
    ours = [v for v in verdicts if v.is_compared and v.key[KEY.index("engine")] not in PEERS]
    slower = [v for v in ours if v.is_slower]
    for v in slower:
        print(f"slower: {_name(v.key)}")
    if not ours:
        print(
            "nothing compared: expected a row of ours that both files hold, timed on the same device, got none"
        )
        return 2
    print(f"{len(slower)} of {len(ours)} rows of ours are slower")
    return 1 if slower else 0


def _name(key: tuple[Any, ...]) -> str:
    case, engine, which, *_, threads = key
    return f"{case}, {engine}, pass {which}, {threads} threads"
