"""What runs in a process of its own for each contestant on a device: its first call, the check, its turns, the counts.

On a GPU nobody is timed beside others: what a library's allocator keeps would be missing to the next, and ends only with the
process. So one process does all of one contestant's work, in this order, and says each when it is done:

    libraries imported, numbers drawn | go | first call | check, turns, memory | launches, trace, counts, ceilings

Run as ``python -m bench.device_child JOB``; JOB is what `Job.as_json` gives.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import accelerator, machine, work
from .cases import Problem, Step
from .child import one_line, say, wait_for_go
from .oracle import LOWER, OURS, PEERS, Oracle
from .probe import Entry

SLOW = 0.5  # seconds of a call from which launches are not counted: there may be hundreds of thousands


@dataclasses.dataclass(frozen=True)
class Job:
    """What one process has to do.

    Attributes:
        entry: whom to run.
        oracle: the file that `Oracle.save` writes.
        rounds, limit: turns, and seconds after which there are no more.
        makes_oracle: instead of all that, compute the oracle of the entry's pass and write the file.
        trace: where a chrome trace of one call is written, or "".
        product, copied: of `accelerator.ceilings`.
    """

    entry: Entry
    oracle: str
    rounds: int
    limit: float
    makes_oracle: bool = False
    trace: str = ""
    product: int = accelerator.PRODUCT
    copied: int = accelerator.COPY

    def as_json(self) -> str:
        return json.dumps({**dataclasses.asdict(self), "entry": self.entry.as_json()})

    @staticmethod
    def from_json(text: str) -> Job:
        fields = json.loads(text)
        return Job(entry=Entry.from_json(fields.pop("entry")), **fields)


def turns(step: Step, rounds: int, limit: float) -> list[float]:
    """Seconds of each timed call of a contestant that has been called once.

    A round is 50 ms of calls. The first two calls are not timed: CUDA graphs are captured in the second. Whoever takes more than
    `limit` for one call has that one timed, and no other.
    """
    first = _timed(step)
    if first > limit:
        return [first]
    step.run()
    seconds: list[float] = []
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            spent = 0.0
            while spent < 0.05:
                seconds.append(_timed(step))
                spent += seconds[-1]
            if sum(seconds) > limit:
                break
    finally:
        gc.enable()
    return seconds


def compete(job: Job, problem: Problem) -> None:
    """Says what the first call cost, then the times, then all else."""
    device = job.entry.device
    found = _measured(job, problem)
    accelerator.release(device)
    try:
        ceilings = accelerator.ceilings(device, job.product, job.copied)._asdict()
    except Exception as failure:
        ceilings = None
        found["notes"].append(f"ceilings: {one_line(failure)}")
    say(**found, ceilings=ceilings)


def _measured(job: Job, problem: Problem) -> dict[str, Any]:
    """All but the ceilings; the contestant is gone when it returns."""
    entry, device = job.entry, job.entry.device
    level = machine.memory_level()
    started = time.perf_counter()
    step, engine = entry.build(problem)
    result = step.run()
    first = time.perf_counter() - started
    say(first_call_s=first, peak_bytes=None if level is None else machine.memory_peak() - level)

    bound = PEERS if engine is None else LOWER.get(entry.engine.partition(":")[2], OURS)
    error = Oracle.load(Path(job.oracle)).check(step.read(result), bound)
    del result
    seconds = turns(step, job.rounds, job.limit)
    say(
        oracle_error=error,
        seconds=seconds,
        device_bytes=accelerator.peak_bytes(device),
        **accelerator.describe(device),
    )

    found: dict[str, Any] = {"notes": []}

    def note(what: str, read: Callable[[], Any]) -> None:
        """A figure, or why there is none: times must not be lost to a tool that fails."""
        try:
            found[what] = read()
        except Exception as failure:
            found["notes"].append(f"{what}: {one_line(failure)}")

    traced = Path(job.trace) if job.trace else None
    if traced is not None or (device != "cpu" and min(seconds) < SLOW):
        note("launches", lambda: accelerator.launches(step.run, device, traced))
    note("occupancy", lambda: accelerator.occupancy(engine))
    if device == "cpu":  # elsewhere buffers are torch's, and `device_bytes` has them
        note("arena_bytes", lambda: work.arena_bytes(engine, step.run))
    if (program := getattr(engine, "program", None)) is not None:
        note("bytes_min", lambda: work.count(program, entry.case, entry.which, "bytes"))
    return found


def main(text: str) -> None:
    """The child's side."""
    job = Job.from_json(text)
    entry = job.entry
    import torch

    torch.set_num_threads(entry.threads)
    accelerator.prepare(entry.device)
    entry.load()
    problem = entry.case.problem()
    say(ready=True)
    wait_for_go()
    try:
        if job.makes_oracle:
            oracle = Oracle(problem, entry.which, entry.device)
            oracle.save(Path(job.oracle))
            say(own=oracle.own, **accelerator.describe(entry.device))
        else:
            compete(job, problem)
    except Exception as failure:  # whatever a library raises becomes a note in its row
        say(error=one_line(failure))


def _timed(step: Step) -> float:
    started = time.perf_counter()
    step.run()
    return time.perf_counter() - started


if __name__ == "__main__":
    main(sys.argv[1])
