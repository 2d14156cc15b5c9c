"""Every contestant on one pass of every case, on a device: one after the other, each in a process of its own, from a time budget.

Ours come first, on every case, then each peer's first setting, then the other settings: a budget that is spent has left out what
matters least. While one is run, the next imports its libraries. A case's oracle is computed on the same device, before whoever is
the first on that case, and handed on as a file.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from . import accelerator, machine, peers, work
from .cases import Case, Pass
from .child import Budget, Child
from .contestants import megabytes, merged, reason
from .device_child import Job
from .harness import fill_ratios, fill_times, new_row
from .probe import Entry, ProbeFailed
from .row import OnDevice, Row

MANY = 132  # tasks above which those that take one after the other are left out, unless they are asked for


@dataclasses.dataclass(frozen=True)
class Settings:
    """How everyone is run.

    Attributes:
        device: "cuda"; "cpu" for tests.
        which, threads, storage: of the pass.
        rounds, limit: turns of each, and the seconds after which there are no more.
        first_limit: seconds for the first call of each contestant and setting.
        command, commit: that reproduce the rows.
        traces: folder for a chrome trace of one call of each of our engines, or None.
        product, copied: of `accelerator.ceilings`.
    """

    device: str
    which: Pass
    threads: int
    storage: str
    rounds: int
    limit: float
    first_limit: float
    command: str
    commit: str
    traces: Path | None = None
    product: int = accelerator.PRODUCT
    copied: int = accelerator.COPY


@dataclasses.dataclass
class _Entrant:
    """A row and the ways to fill it, of which the fastest is kept."""

    row: Row
    is_ours: bool
    entries: list[Entry] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    best: dict[str, Any] | None = None

    def take(self, entry: Entry, found: dict[str, Any]) -> None:
        if self.best is None or _median(found) < _median(self.best):
            self.best = {**found, "setting": entry.setting}


@dataclasses.dataclass
class _Group:
    """The rows of one case. Without an oracle nobody is run."""

    case: Case
    oracle: Path
    gflop: float
    entrants: list[_Entrant]
    is_lost: bool = False

    def rows(self) -> list[Row]:
        """With all that is known by now."""
        for each in self.entrants:
            _fill(each, self.gflop)
        ours, theirs = ([e.row for e in self.entrants if e.is_ours is own] for own in (True, False))
        fill_ratios(ours, theirs)
        return [each.row for each in self.entrants]


class _Turn(NamedTuple):
    group: _Group
    entrant: _Entrant | None  # None: the oracle's
    job: Job


def run(
    cases: Sequence[Case],
    settings: Settings,
    *,
    engines: Sequence[str],
    peer_names: Sequence[str] | None,
    budget: Budget,
    say: Callable[[str], None],
    keep: Callable[[list[Row]], None],
) -> list[list[Row]]:
    """The rows of each case; a failure is noted in its row, never raised.

    Args:
        cases: what to compute.
        settings: how.
        engines: names for ``pymgan.compile``.
        peer_names: keys of ``peers.PEERS``, or "jax:vmap-unroll1"; None: the usual ones.
        budget: who is not reached within it has a note.
        say: progress, one line a process.
        keep: is given all rows whenever one has changed.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        groups = []
        for number, case in enumerate(cases):
            entrants = [_engine(case, settings, name) for name in engines]
            entrants += [
                _peer(case, settings, wanted, named=peer_names is not None)
                for wanted in (peers.ON_CUDA if peer_names is None else peer_names)
            ]
            oracle = Path(folder, f"oracle{number}.pt")
            groups.append(_Group(case, oracle, work.gflop(case, settings.which), entrants))
        for turn, child in _ahead(_turns(groups, settings), budget):
            if turn.group.is_lost:
                continue
            say(_take(turn, child, settings, budget))
            keep([row for group in groups for row in group.rows()])
        return [group.rows() for group in groups]


def _turns(groups: Sequence[_Group], settings: Settings) -> list[_Turn]:
    """Everybody's, in the order in which they are run."""
    first, later = [], []
    for number, group in enumerate(groups):
        plain = Entry(group.case, settings.which, settings.threads, settings.device)
        first.append(_Turn(group, None, _job(settings, plain, group.oracle, makes_oracle=True)))
        for place, entrant in enumerate(group.entrants):
            for nth, entry in enumerate(entrant.entries):
                turn = _Turn(group, entrant, _job(settings, entry, group.oracle))
                if entrant.is_ours:
                    first.append(turn)
                else:
                    later.append(((nth, place, number), turn))
    return first + [turn for _, turn in sorted(later, key=lambda each: each[0])]


def _take(turn: _Turn, child: Child | None, settings: Settings, budget: Budget) -> str:
    """Runs one and notes what came of it; one line about it."""
    group, entrant, entry = turn.group, turn.entrant, turn.job.entry
    name = "oracle (float64)" if entrant is None else " ".join([entrant.row.engine, entry.setting]).strip()
    try:
        found = _attend(child, None if entrant is None else settings.first_limit, budget)
    except ProbeFailed as failure:
        if entrant is None:
            group.is_lost = True
            for each in group.entrants:
                each.notes.append(f"no oracle: {failure}")
        else:
            entrant.notes.append(f"{entry.setting}: {failure}".lstrip(": "))
        return f"{group.case.name}: {name}: {failure}"
    for each in group.entrants:
        each.row.device = found["name"]
    if entrant is None:
        return f"{group.case.name}: {name}: torch's float32 is off by {found['own']:.1e}"
    entrant.take(entry, found)
    return f"{group.case.name}: {name}: {_median(found) * 1e3:.4g} ms"


def _row(case: Case, settings: Settings, name: str, packages: Sequence[str]) -> Row:
    row = new_row(case, settings.which, settings.threads, name, packages, settings.command)
    row.commit = settings.commit
    return row


def _engine(case: Case, settings: Settings, name: str) -> _Entrant:
    packages = ["pymgan", "torch", *(["triton"] if importlib.util.find_spec("triton") else [])]
    row = _row(case, settings, name, packages)
    entry = Entry(
        case, settings.which, settings.threads, settings.device, engine=name, storage=settings.storage
    )
    notes = [f"storage {settings.storage}"] if settings.storage != "auto" else []
    return _Entrant(row, is_ours=True, entries=[entry], notes=notes)


def _peer(case: Case, settings: Settings, wanted: str, *, named: bool) -> _Entrant:
    name, _, setting = wanted.partition(":")
    try:
        peer = peers.load(name)
        row = _row(case, settings, name, peer.VERSIONS)
    except Exception as failure:  # a broken installation raises anything
        row = _row(case, settings, name, ())
        return _Entrant(row, is_ours=False, notes=[reason(failure)])
    entrant = _Entrant(row, is_ours=False)
    if settings.which not in peer.PASSES:
        entrant.notes.append(f"pass {settings.which} not supported, only {', '.join(peer.PASSES)}")
        return entrant
    if not named and name in peers.TASK_BY_TASK and case.tasks > MANY:
        entrant.notes.append(f"not run: one task after the other, {case.tasks} of them (--peer {name})")
        return entrant
    known = list(peer.variants(case.altered(tasks=1).problem(), settings.which))
    if setting and setting not in known:
        entrant.notes.append(f"expected a setting of {name}: {', '.join(known)}, got {setting}")
        return entrant
    usual = [each for each in known if each.startswith(peers.ON_CUDA.get(name, ("",)))]
    plain = Entry(case, settings.which, settings.threads, settings.device, module=peers.PEERS[name])
    tried = [setting] if setting else usual
    entrant.entries = [dataclasses.replace(plain, setting=each) for each in tried]
    return entrant


def _job(settings: Settings, entry: Entry, oracle: Path, *, makes_oracle: bool = False) -> Job:
    trace = ""
    if settings.traces is not None and entry.engine:
        trace = str((settings.traces / f"{entry.slug()}.trace.json").resolve())
    return Job(
        entry,
        str(oracle),
        settings.rounds,
        settings.limit,
        makes_oracle=makes_oracle,
        trace=trace,
        product=settings.product,
        copied=settings.copied,
    )


def _ahead(jobs: Sequence[_Turn], budget: Budget) -> Iterator[tuple[_Turn, Child | None]]:
    """Each with its process, started one turn ahead and ended when the next is asked for; None once the budget is spent."""

    def start(job: Job) -> Child | None:
        return None if budget.is_spent() else Child("bench.device_child", job.as_json())

    following: list[Child | None] = [start(jobs[0].job)]
    try:
        for i, turn in enumerate(jobs):
            if i + 1 < len(jobs):
                following.append(start(jobs[i + 1].job))
            yield turn, following[0]
            if (done := following.pop(0)) is not None:
                done.close()
    finally:
        for child in filter(None, following):
            child.close()


def _attend(child: Child | None, first_limit: float | None, budget: Budget) -> dict[str, Any]:
    """Lets a process go and returns all that it says, together.

    Args:
        child: whose; None: there was no time left to start it.
        first_limit: seconds for its first call, or None.
        budget: for all else.

    Raises:
        ProbeFailed: it raised, died, was too slow, or was not started because the budget is spent.
    """
    if child is None or budget.is_spent():
        raise ProbeFailed("not run: budget spent (--budget)")
    found: dict[str, Any] = {}
    # Importing may take what it takes; so may all that follows a first call that was done in time.
    for limit in (None, first_limit, None, None):
        try:
            said = _next(child, limit, budget)
        except ProbeFailed as failure:
            if "seconds" not in found:
                raise
            return {**found, "notes": [f"no further figures: {failure}"]}  # the times are there
        if "ready" in said:
            child.go()
        found |= said
        if "own" in found:  # of the oracle, which says nothing more
            break
    return found


def _next(child: Child, limit: float | None, budget: Budget) -> dict[str, Any]:
    """What it says next. Raises as `_attend` does."""
    left = max(0.0, budget.left())
    wait = left if limit is None else min(limit, left)
    try:
        said = child.message(None if wait == float("inf") else wait)
    except TimeoutError:
        spent = "stopped: budget spent (--budget)"
        late = f"first call not done after {limit:g} s (--first-limit)" if limit == wait else spent
        raise ProbeFailed(late) from None
    if said is None:
        raise ProbeFailed(child.reason())
    if "error" in said:
        raise ProbeFailed(said["error"])
    return said


def _median(found: dict[str, Any]) -> float:
    seconds: list[float] = found["seconds"]
    return statistics.median(seconds)


def _fill(entrant: _Entrant, gflop: float) -> None:
    row, found, notes = entrant.row, entrant.best, entrant.notes
    if found is not None:
        notes = [*filter(None, [found["setting"]]), *notes, *found["notes"]]
        fill_times(row, found["seconds"], gflop)
        row.first_call_s, row.peak_rss_mb = found["first_call_s"], megabytes(found["peak_bytes"])
        row.oracle_error, row.arena_mb = found["oracle_error"], megabytes(found.get("arena_bytes"))
        row.bytes_min = found.get("bytes_min")
        row.on_device = OnDevice(
            driver=found["driver"],
            cuda=found["cuda"],
            host=machine.device(),
            tflops=gflop / _median(found) / 1e3,
            launches=found.get("launches"),
            occupancy=found.get("occupancy"),
            device_mb=megabytes(found["device_bytes"]),
        )
        if (measured := found.get("ceilings")) is not None:
            _hold_against(row, row.on_device, accelerator.Ceilings(**measured), _median(found))
    row.note = "; ".join(merged(notes))


def _hold_against(row: Row, figures: OnDevice, ceilings: accelerator.Ceilings, seconds: float) -> None:
    """Fills in the shares of the ceilings."""
    figures.ceilings = ceilings._asdict()
    row.roofline = figures.share_matmul = figures.tflops / ceilings.matmul_tflops
    figures.share_matmul_tf32 = figures.tflops / ceilings.matmul_tf32_tflops
    if row.bytes_min is not None:
        figures.share_copy = row.bytes_min / 1e9 / seconds / ceilings.copy_gb_s


def ceilings_line(rows: Sequence[Row]) -> str:
    """What the device reached beside all these rows, in words; each row has its own."""
    figures = [row.on_device for row in rows if row.on_device is not None]
    found = [accelerator.Ceilings(**each.ceilings) for each in figures if each.ceilings is not None]
    if not found:
        return "no ceilings: they were not measured"
    middle = accelerator.Ceilings(*(statistics.median(column) for column in zip(*found, strict=True)))
    size = accelerator.PRODUCT
    return (
        f"ceilings, the median of {len(found)}: {size} x {size} product {middle.matmul_tflops:.1f} TFLOP/s in float32, "
        f"{middle.matmul_tf32_tflops:.0f} in TF32; copy {middle.copy_gb_s:.0f} GB/s"
    )
