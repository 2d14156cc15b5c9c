"""Every contestant on one pass of one case: checked first, then timed in interleaved rounds, so that a noisy moment hits all."""

from __future__ import annotations

import importlib.metadata
import platform
import random
import statistics
from collections.abc import Callable, Sequence

import numpy as np
import torch

from . import machine, peers, work
from .cases import Case, Pass, Step
from .contestants import Contestant, enter_engine, enter_peer, reason
from .oracle import Oracle
from .probe import Entry
from .row import Row

PRODUCT = 2048  # rows and columns of the large float32 product that stands for this machine's speed


def run_case(
    case: Case,
    which: Pass = "meta",
    *,
    engines: Sequence[str],
    peer_names: Sequence[str],
    rounds: int,
    threads: int,
    limit: float,
    first_limit: float,
    command: str,
    say: Callable[[str], None],
    storage: str = "auto",
) -> list[Row]:
    """All rows of one case.

    Args:
        case: what to compute.
        which: how much of it.
        engines: names for ``pymgan.compile``.
        peer_names: keys of ``peers.PEERS``; "jax:vmap-unroll1" tries that setting alone.
        rounds: how often every contestant gets its turn.
        threads: cores for each of them.
        limit: seconds of turns after which a contestant gets no more; it has one turn at least.
        first_limit: seconds for the first call of each contestant and setting.
        command: the command that reproduces the rows.
        say: progress, one line a call.
        storage: of our engines.
    """

    problem = case.problem()
    say(f"{case.name}: oracle (float64)")
    oracle = Oracle(problem, which)

    contestants = []
    for name in engines:
        say(f"{case.name}: {name}, first call")
        of_engine = Entry(case, which, threads, engine=name, storage=storage)
        row = new_row(case, which, threads, name, ("pymgan", "torch"), command)
        contestants.append(enter_engine(row, of_engine, problem, oracle, first_limit))
    for wanted in peer_names:
        name, _, setting = wanted.partition(":")
        say(f"{case.name}: {name}, first call of each setting")
        try:
            row = new_row(case, which, threads, name, peers.load(name).VERSIONS, command)
        except Exception as failure:  # a broken installation raises anything
            row = new_row(case, which, threads, name, (), command)
            row.note = reason(failure)
            contestants.append(Contestant(row, is_ours=False))
            continue
        of_peer = Entry(case, which, threads, module=peers.PEERS[name], setting=setting)
        contestants.append(enter_peer(row, name, of_peer, problem, oracle, first_limit))

    large, large_gflop = product_step()
    product = Contestant(Row(case.name, "product", 1, threads), is_ours=False, step=large)

    entrants = [*contestants, product]
    order = random.Random(0)
    started = machine.load()
    for i in range(rounds):
        say(f"{case.name}: round {i + 1} of {rounds}")
        for entrant in order.sample(entrants, len(entrants)):
            entrant.turn(limit)

    speed = large_gflop / statistics.median(product.seconds)
    say(f"{case.name}: this machine's {PRODUCT} x {PRODUCT} float32 product: {speed:.0f} GFLOP/s")
    _fill(contestants, work.gflop(case, which), speed)
    others = machine.others(started, machine.load())
    if others > 0.1:
        say(f"{case.name}: other processes used {others:.1f} cores meanwhile: these times are no measurement")
        for entrant in contestants:
            entrant.row.note = "; ".join(filter(None, [entrant.row.note, f"others used {others:.1f} cores"]))
    return [c.row for c in contestants]


def new_row(case: Case, which: Pass, threads: int, name: str, packages: Sequence[str], command: str) -> Row:
    """A row of engine or peer `name` that nothing was measured for yet, with the versions of its `packages`."""
    versions = {package: importlib.metadata.version(package) for package in packages}
    versions |= {"python": platform.python_version(), "numpy": np.__version__}
    return Row(
        case.name,
        name,
        case.tasks,
        threads,
        which=which,
        device=machine.device(),
        versions=versions,
        commit=machine.commit(),
        command=command,
    )


def product_step() -> tuple[Step, float]:
    """The large product of torch's, and its work in GFLOP."""
    a, b = torch.randn(2, PRODUCT, PRODUCT)
    return Step(run=lambda: a @ b, read=lambda result: result), 2 * PRODUCT**3 / 1e9


def fill_times(row: Row, seconds: Sequence[float], gflop: float) -> None:
    """The quantiles of a row's calls, and its speed by the work that the case counts."""
    ms = np.array(seconds) * 1e3
    row.median_ms, row.q20_ms, row.q80_ms = (float(np.quantile(ms, q)) for q in (0.5, 0.2, 0.8))
    row.gflops = gflop / row.median_ms * 1e3


def fill_ratios(ours: Sequence[Row], theirs: Sequence[Row]) -> None:
    """How often the fastest peer's time is that of each of ours; nothing where no peer was timed."""
    best = min((row.median_ms for row in theirs if row.median_ms), default=None)
    for row in ours:
        if row.median_ms and best:
            row.ratio_to_best_peer = best / row.median_ms


def _fill(contestants: Sequence[Contestant], gflop: float, product_gflops: float) -> None:
    for entrant in contestants:
        if entrant.seconds:
            fill_times(entrant.row, entrant.seconds, gflop)
            entrant.row.roofline = gflop / statistics.median(entrant.seconds) / product_gflops
    fill_ratios([c.row for c in contestants if c.is_ours], [c.row for c in contestants if not c.is_ours])
