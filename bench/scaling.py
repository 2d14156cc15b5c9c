"""``python -m bench scaling``: how our engine's cost grows along one size at a time, from the case `ring-mlp` on.

The pass is `meta`. Microseconds per task-step (time / (T K)) stay flat along tasks and steps where nothing gets in the way. The
large product that each time is held against is timed in turns with it. Work is the merged count, whatever a storage mode repeats.
The axis of steps has storage "nested" beside the default, so that the bytes of buffers at K = 1000 against K = 10 show.

The bench's own cases are checked against the oracle; here results are only required to be finite, as the oracle of the large
points would take hours and gigabytes.
"""

from __future__ import annotations

import argparse
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from . import machine
from .__main__ import add_threads, check_threads

AXES = ("tasks", "batch", "width", "steps", "threads")
VALUES: dict[str, tuple[int, ...]] = {
    "tasks": (1, 4, 16, 64, 256, 1024),
    "batch": (1, 4, 16, 64, 256),
    "width": (8, 16, 32, 64, 128, 256, 512),
    "steps": (1, 10, 100, 1000),
}
ROUNDS = 5  # of a point: one call and one product each, more of a short one
BUDGET = 4.0  # seconds of rounds for a point, after which it gets no more; two it has in any case
HEADER = (
    "axis",
    "value",
    "storage",
    "median ms",
    "us per task-step",
    "GFLOP/s",
    "of product",
    "buffers MB",
    "note",
)


def points(axis: str, threads: int) -> list[tuple[int, str]]:
    """(value, storage) of every point along an axis."""
    if axis == "threads":
        return [(n, "auto") for n in range(1, threads + 1)]
    storages = ("auto", "nested") if axis == "steps" else ("auto",)
    return [(value, storage) for storage in storages for value in VALUES[axis]]


def case_at(axis: str, value: int) -> Any:
    """`ring-mlp` with `value` along `axis`; the same case along "threads"."""
    from .cases import RING_MLP

    if axis == "width":
        return RING_MLP.altered(
            generator_widths=(RING_MLP.latent, value, value, 2), discriminator_widths=(2, value, value, 1)
        )
    field = {"steps": "inner_steps", "threads": "tasks"}.get(axis, axis)
    return RING_MLP.altered(**({} if axis == "threads" else {field: value}))


def measure(axis: str, value: int, storage: str, threads: int) -> dict[str, Any]:
    """One point as JSON holds it; what failed has a note and no times."""
    import torch

    from . import ours, work
    from .harness import product_step

    point: dict[str, Any] = {"axis": axis, "value": value, "storage": storage}
    point |= dict.fromkeys(("median_ms", "us_per_task_step", "gflops", "roofline", "arena_mb"))
    point["note"] = ""
    case = case_at(axis, value)
    torch.set_num_threads(threads)
    product, product_gflop = product_step()
    try:
        step, engine = ours.build(case.problem(), "cpu", threads=threads, storage=storage)
        point["arena_mb"] = (work.arena_bytes(engine, step.run) or 0) / 1e6
        if not bool(torch.isfinite(step()).all()):  # also fills the engine's own pool
            raise ArithmeticError("the result is not finite")
    except (
        RuntimeError,
        ArithmeticError,
    ) as failure:  # torch raises RuntimeError where memory does not suffice
        point["note"] = str(failure).splitlines()[0]
        return point
    product.run()
    seconds: list[float] = []
    of_product: list[float] = []
    started = time.perf_counter()
    for i in range(ROUNDS):
        if i >= 2 and time.perf_counter() - started > BUDGET:
            break
        of_product.append(_timed(product.run))
        step.run()
        spent = 0.0
        while spent < 0.05:
            seconds.append(_timed(step.run))
            spent += seconds[-1]
    median = statistics.median(seconds)
    point["median_ms"] = median * 1e3
    point["us_per_task_step"] = median * 1e6 / (case.tasks * case.inner_steps)
    point["gflops"] = work.gflop(case, "meta") / median
    point["roofline"] = point["gflops"] / (product_gflop / statistics.median(of_product))
    return point


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown, one line a point."""
    from .row import markdown, number, percent

    return markdown(
        HEADER,
        [
            [
                p["axis"],
                str(p["value"]),
                p["storage"],
                number(p["median_ms"], 4),
                number(p["us_per_task_step"], 4),
                number(p["gflops"], 3),
                percent(p["roofline"]),
                number(p["arena_mb"], 3),
                p["note"],
            ]
            for p in rows
        ],
    )


def main(argv: list[str]) -> int:
    """Returns 1 when a point failed, else 0."""
    parser = argparse.ArgumentParser(
        prog="python -m bench scaling",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--axis", action="append", choices=AXES, help="repeatable; default: all")
    add_threads(parser)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the points there")
    args = parser.parse_args(argv)
    check_threads(parser, args.threads)
    machine.use_cores(args.threads)
    from .row import write_json

    about = {
        "device": machine.device(),
        "commit": machine.commit(),
        "command": shlex.join(["python", "-m", "bench", "scaling", *argv]),
    }
    rows = []
    for axis in args.axis or AXES:
        new = []
        for value, storage in points(axis, args.threads):
            print(f"{axis} {value}, storage {storage}", file=sys.stderr, flush=True)
            threads = value if axis == "threads" else args.threads
            new.append({**measure(axis, value, storage, threads), "threads": threads, **about})
        rows += new
        print(table(new) + "\n", flush=True)
    print(
        f"{about['device']}, {args.threads} threads, commit {about['commit'] or 'unknown'}: {about['command']}"
    )
    if args.json:
        write_json(args.json, rows)
    return 1 if any(row["median_ms"] is None for row in rows) else 0


def _timed(run: Callable[[], Any]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started
