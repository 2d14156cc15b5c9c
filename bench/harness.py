"""Checks every contestant against the float64 oracle, then times all of them in interleaved rounds."""

from __future__ import annotations

import gc
import importlib.metadata
import os
import platform
import random
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from . import ours, peers
from .cases import Case, Problem, Step
from .row import Row

PRODUCT = 2048  # rows and columns of the large float32 product that stands for this machine's speed
EPS = torch.finfo(torch.float32).eps


class WrongResult(Exception):
    """A contestant's result is further from the oracle than float32 explains."""


class Contestant:
    """One engine or peer on one case: built, run once, checked."""

    def __init__(self, row: Row, is_ours: bool) -> None:
        self.row = row
        self.is_ours = is_ours
        self.step: Step | None = None
        self.seconds: list[float] = []
        self.spent = 0.0

    def turn(self, limit: float) -> None:
        """One round's share: an untimed call, for its threads and caches, then 50 ms of timed ones."""
        if self.step is None or (self.spent > limit and self.seconds):
            return
        arrived = time.perf_counter()
        gc.collect()
        gc.disable()
        try:
            self.step()
            spent = 0.0
            while spent < 0.05:
                started = time.perf_counter()
                self.step()
                self.seconds.append(time.perf_counter() - started)
                spent += self.seconds[-1]
        finally:
            gc.enable()
            self.spent += time.perf_counter() - arrived


def run_case(
    case: Case,
    *,
    engines: Sequence[str],
    peer_names: Sequence[str],
    rounds: int,
    threads: int,
    limit: float,
    command: str,
    say: Callable[[str], None],
) -> list[Row]:
    """All rows of one case.

    Args:
        case: what to compute.
        engines: names for ``pymgan.compile``.
        peer_names: keys of ``peers.PEERS``.
        rounds: how often every contestant gets its turn.
        threads: cores for each of them.
        limit: seconds of turns after which a contestant gets no more; it has one turn at least.
        command: the command that reproduces the rows.
        say: progress, one line a call.
    """

    def new_row(name: str, packages: Sequence[str]) -> Row:
        versions = {package: importlib.metadata.version(package) for package in packages}
        versions |= {"python": platform.python_version(), "numpy": np.__version__}
        return Row(
            case.name,
            name,
            case.tasks,
            threads,
            device=device(),
            versions=versions,
            commit=commit(),
            command=command,
        )

    if not case.supported:
        names = [*engines, *peer_names]
        return [_noted(new_row(name, ()), "case not supported yet: it needs convolutions") for name in names]

    problem = case.problem()
    say(f"{case.name}: oracle (float64)")
    truth = ours.build(problem, "reference", dtype=torch.float64)[0]()
    # A float32 result may lose three times what torch's own float32 loses, with a floor.
    own = ours.build(problem, "reference", dtype=torch.float32)[0]()
    allowed = max(3 * error(own, truth), 8 * EPS)

    contestants = []
    for name in engines:
        say(f"{case.name}: {name}, first call")
        contestants.append(
            _enter(new_row(name, ("pymgan", "torch")), _engine(problem, name, threads), truth, allowed)
        )
    for name in peer_names:
        try:
            peer = peers.load(name)
        except Exception as problem_of_peer:  # a broken installation raises anything
            contestants.append(Contestant(_noted(new_row(name, ()), _reason(problem_of_peer)), is_ours=False))
            continue
        say(f"{case.name}: {name}, first call of each setting")
        contestants.append(
            _enter(new_row(name, peer.VERSIONS), peer.variants(problem), truth, allowed, is_ours=False)
        )

    a, b = torch.randn(2, PRODUCT, PRODUCT)
    product = Contestant(Row(case.name, "product", 1, threads), is_ours=False)
    product.step = lambda: a @ b

    entrants = [*contestants, product]
    order = random.Random(0)
    started = _load()
    for i in range(rounds):
        say(f"{case.name}: round {i + 1} of {rounds}")
        for entrant in order.sample(entrants, len(entrants)):
            entrant.turn(limit)

    speed = 2 * PRODUCT**3 / statistics.median(product.seconds) / 1e9
    say(f"{case.name}: this machine's {PRODUCT} x {PRODUCT} float32 product: {speed:.0f} GFLOP/s")
    _fill(contestants, case, speed)
    others = _others(started, _load())
    if others > 0.1:
        say(f"{case.name}: other processes used {others:.1f} cores meanwhile: these times are no measurement")
        for entrant in contestants:
            entrant.row.note = "; ".join(filter(None, [entrant.row.note, f"others used {others:.1f} cores"]))
    return [c.row for c in contestants]


def error(result: Tensor, truth: Tensor) -> float:
    """Relative Euclidean error."""
    return float((result.double() - truth).norm() / truth.norm())


def _engine(problem: Problem, name: str, threads: int) -> dict[str, Callable[[], Step]]:
    return {"": lambda: ours.build(problem, name, threads=threads)[0]}


def _enter(
    row: Row, variants: dict[str, Callable[[], Step]], truth: Tensor, allowed: float, *, is_ours: bool = True
) -> Contestant:
    """Run and check every setting, keep the fastest. A failure is noted in the row, never raised."""
    entrant = Contestant(row, is_ours)
    best, notes = float("inf"), []
    for setting, build in variants.items():
        try:
            started = time.perf_counter()
            step = build()
            result = step()
            first = time.perf_counter() - started
            off = error(result, truth)
            if not off <= allowed:
                raise WrongResult(f"error {off:.1e} against the oracle, expected at most {allowed:.1e}")
            seconds = min(_timed(step) for _ in range(3))
        except Exception as failure:  # one contestant's failure must not sink the rest
            notes.append(f"{setting}: {_reason(failure)}".lstrip(": "))
            continue
        if seconds < best:
            best, entrant.step = seconds, step
            row.first_call_s, row.oracle_error = first, off
            chosen = setting
    if entrant.step is not None and chosen:
        notes.insert(0, chosen)
    return _with_note(entrant, "; ".join(notes))


def _with_note(entrant: Contestant, note: str) -> Contestant:
    entrant.row.note = note
    return entrant


def _noted(row: Row, note: str) -> Row:
    row.note = note
    return row


def _reason(failure: Exception) -> str:
    if isinstance(failure, ImportError):
        return f"not installed ({failure}); python -m bench setup"
    lines = str(failure).strip().splitlines() or ["no message"]
    return f"{type(failure).__name__}: {lines[0]}"


def _timed(step: Step) -> float:
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def _fill(contestants: Sequence[Contestant], case: Case, product_gflops: float) -> None:
    for entrant in contestants:
        if not entrant.seconds:
            continue
        row, ms = entrant.row, np.array(entrant.seconds) * 1e3
        row.median_ms, row.q20_ms, row.q80_ms = (float(np.quantile(ms, q)) for q in (0.5, 0.2, 0.8))
        if case.gflop is not None:
            row.gflops = case.gflop / row.median_ms * 1e3
            row.roofline = row.gflops / product_gflops
    best = min((c.row.median_ms for c in contestants if not c.is_ours and c.row.median_ms), default=None)
    for entrant in contestants:
        if entrant.is_ours and entrant.row.median_ms and best:
            entrant.row.ratio_to_best_peer = best / entrant.row.median_ms


def _load() -> tuple[float, float, float]:
    """(seconds by the clock, seconds of all cores at work, seconds of this process); the second is 0 off Linux."""
    stat = Path("/proc/stat")
    work = 0.0
    if stat.exists():
        user, nice, system = map(int, stat.read_text().split(maxsplit=4)[1:4])
        work = (user + nice + system) / os.sysconf("SC_CLK_TCK")
    times = os.times()
    return time.perf_counter(), work, times.user + times.system


def _others(start: tuple[float, float, float], end: tuple[float, float, float]) -> float:
    """Cores that other processes kept busy between two readings of `_load`."""
    clock, work, own = (b - a for a, b in zip(start, end, strict=True))
    return max(0.0, (work - own) / clock) if work else 0.0


def device() -> str:
    """The processor's name and the cores that this process may use."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        name = lines[0].split(":", 1)[1].strip() if lines else name
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {cores} cores"


def commit() -> str:
    """The checkout's commit, with a + when files differ from it; "" outside of git."""
    root = Path(__file__).resolve().parent.parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


__all__ = ["Contestant", "WrongResult", "error", "run_case"]
