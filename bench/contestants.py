"""Who takes part: tried in a process of its own, built, checked against the oracle; a peer with its fastest setting."""

from __future__ import annotations

import dataclasses
import gc
import time
from collections.abc import Sequence

from . import peers, work
from .cases import Problem, Step
from .child import one_line
from .oracle import PEERS, Oracle
from .probe import Entry, Probe, ProbeFailed, probe
from .row import Row

MB = 1e6


class Contestant:
    """One engine or peer on one pass of one case. Without a `step` it is not timed, and its row's note says why."""

    def __init__(self, row: Row, is_ours: bool, step: Step | None = None) -> None:
        self.row = row
        self.is_ours = is_ours
        self.step = step
        self.seconds: list[float] = []
        self.spent = 0.0

    def turn(self, limit: float) -> None:
        """One round's share: an untimed call, for its threads and caches, then 50 ms of timed ones.

        Args:
            limit: seconds of turns after which there are no more; the first is always had.
        """
        if self.step is None or (self.spent > limit and self.seconds):
            return
        arrived = time.perf_counter()
        gc.collect()
        gc.disable()
        try:
            self.step.run()
            spent = 0.0
            while spent < 0.05:
                self.seconds.append(_timed(self.step))
                spent += self.seconds[-1]
        finally:
            gc.enable()
            self.spent += time.perf_counter() - arrived


def enter_engine(row: Row, entry: Entry, problem: Problem, oracle: Oracle, first_limit: float) -> Contestant:
    """One of our engines. A failure is noted in the row, never raised.

    Args:
        row: to be filled.
        entry: what it computes, and how.
        problem: of the same case.
        oracle: of the same pass.
        first_limit: seconds for its first call.
    """
    try:
        tried = probe(entry, first_limit)
        step, engine = entry.build(problem)
        row.oracle_error = oracle.check(step())
        row.arena_mb = megabytes(work.arena_bytes(engine, step.run))
        if (program := getattr(engine, "program", None)) is not None:
            row.bytes_min = work.count(program, entry.case, entry.which, "bytes")
    except Exception as failure:  # one contestant's failure must not sink the rest
        row.note = reason(failure)
        return Contestant(row, is_ours=True)
    _note_first(row, tried)
    row.note = f"storage {entry.storage}" if entry.storage != "auto" else ""
    return Contestant(row, is_ours=True, step=step)


def enter_peer(
    row: Row, name: str, entry: Entry, problem: Problem, oracle: Oracle, first_limit: float
) -> Contestant:
    """Tries every setting of a peer (or the one that `entry` names) and keeps the fastest. A failure is noted, never raised.

    Args:
        row: to be filled.
        name: a key of ``peers.PEERS``.
        entry: what is computed; its setting, unless "", is the only one tried.
        problem: of the same case.
        oracle: of the same pass.
        first_limit: seconds for the first call of each setting.
    """
    entrant = Contestant(row, is_ours=False)
    peer = peers.load(name)
    if entry.which not in peer.PASSES:
        row.note = f"pass {entry.which} not supported, only {', '.join(peer.PASSES)}"
        return entrant
    settings = list(peer.variants(problem, entry.which))
    if entry.setting and entry.setting not in settings:
        row.note = f"expected a setting of {name}: {', '.join(settings)}, got {entry.setting}"
        return entrant
    best, notes = float("inf"), []
    for setting in [entry.setting] if entry.setting else settings:
        of_setting = dataclasses.replace(entry, setting=setting)
        try:
            tried = probe(of_setting, first_limit)
            step, _ = of_setting.build(problem)
            off = oracle.check(step(), times=PEERS)
            seconds = _fastest(step)
        except Exception as failure:
            notes.append(f"{setting}: {reason(failure)}".lstrip(": "))
            continue
        if seconds < best:
            best, entrant.step, chosen = seconds, step, setting
            row.oracle_error = off
            _note_first(row, tried)
    if entrant.step is not None and chosen:
        notes.insert(0, chosen)
    row.note = "; ".join(merged(notes))
    return entrant


def reason(failure: Exception) -> str:
    """One line for a row's note."""
    if isinstance(failure, ImportError):
        return f"not installed ({failure}); python -m bench setup"
    if isinstance(failure, ProbeFailed):
        return str(failure)
    return one_line(failure)


def _note_first(row: Row, tried: Probe) -> None:
    row.first_call_s, row.peak_rss_mb = tried.seconds, megabytes(tried.peak_bytes)


def merged(notes: Sequence[str]) -> list[str]:
    """ "a: over; b: over" reads "a, b: over"."""
    told: dict[str, list[str]] = {}
    for note in notes:
        name, colon, why = note.partition(": ")
        told.setdefault(why if colon else "", []).append(name)
    return [", ".join(names) + (f": {why}" if why else "") for why, names in told.items()]


def megabytes(count: float | None) -> float | None:
    return None if count is None else count / MB


def _fastest(step: Step) -> float:
    """Seconds of the fastest of three calls; of those of several seconds one tells enough."""
    seconds = [_timed(step)]
    while len(seconds) < 3 and seconds[0] < 3:
        seconds.append(_timed(step))
    return min(seconds)


def _timed(step: Step) -> float:
    started = time.perf_counter()
    step.run()
    return time.perf_counter() - started
