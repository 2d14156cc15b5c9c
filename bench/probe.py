"""One first call in a fresh process: how long it takes, how much memory it needs, and whether it ends in time.

Nothing stops a compiler that runs inside this process, so whoever takes part is first tried in a process of its own, which can
be killed. It also gives figures that no process with many libraries in it could: the time from nothing to the first result, and
the memory above the level after import.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
import sys
import time
from typing import Any

from . import accelerator, machine, ours
from .cases import Case, Pass, Problem, Step
from .child import Child, one_line, say


class ProbeFailed(Exception):
    """The first call did not end, or not in time."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """One way of computing one pass: enough to build it, in this process or in another.

    Attributes:
        case, which, threads: what is computed, and with how many cores.
        device: "cpu" or "cuda".
        engine: a name for ``pymgan.compile``, or "" for a peer.
        storage: of that engine.
        module: of a peer, such as "bench.peers.autograd", or "" for an engine.
        setting: one of the peer's variants.
    """

    case: Case
    which: Pass
    threads: int
    device: str = "cpu"
    engine: str = ""
    storage: str = "auto"
    module: str = ""
    setting: str = ""

    def load(self) -> None:
        """Imports all that `build` needs."""
        importlib.import_module(self.module or "bench.ours")

    def build(self, problem: Problem) -> tuple[Step, Any]:
        """(the pass, our engine or None of a peer); compiles nothing that its library would compile at the first call."""
        engine = None
        if self.module:
            of_peer = importlib.import_module(self.module).variants(problem.to(self.device), self.which)
            step: Step = of_peer[self.setting]()
        else:
            step, engine = ours.build(
                problem,
                self.engine,
                self.which,
                device=self.device,
                threads=self.threads,
                storage=self.storage,
            )
        return accelerator.finished(step, self.device), engine

    def slug(self) -> str:
        """A file's name for what an engine of ours computes."""
        return re.sub(r"[^A-Za-z0-9.]+", "-", f"{self.case.name} {self.engine} {self.which}")

    def as_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @staticmethod
    def from_json(text: str) -> Entry:
        fields = json.loads(text)
        case = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.pop("case").items()}
        return Entry(case=Case(**case), **fields)


@dataclasses.dataclass(frozen=True)
class Probe:
    """What a first call cost. `peak_bytes` is above the level after import; None where the system does not tell."""

    seconds: float
    peak_bytes: float | None


def probe(entry: Entry, limit: float) -> Probe:
    """Builds and runs `entry` once in a fresh process with the same cores.

    Args:
        entry: whom to try.
        limit: seconds for building and the first call, once libraries are imported.

    Raises:
        ProbeFailed: it raised, died, or was not done after `limit` seconds (it was killed then).
    """
    with Child("bench.probe", entry.as_json()) as child:
        try:
            said = child.message() and child.message(limit)
        except TimeoutError:
            raise ProbeFailed(f"first call not done after {limit:g} s (--first-limit)") from None
        if said is None:
            raise ProbeFailed(child.reason())
        if "error" in said:
            raise ProbeFailed(said["error"])
        return Probe(**said)


def main(text: str) -> None:
    """The child's side: says that it is ready once its libraries are imported, then what its first call cost."""
    entry = Entry.from_json(text)
    import torch

    torch.set_num_threads(entry.threads)
    entry.load()
    level = machine.memory_level()
    say(ready=True)
    problem = entry.case.problem()
    started = time.perf_counter()
    try:
        entry.build(problem)[0].run()
    except Exception as failure:  # whatever a library raises becomes a note in its row
        say(error=one_line(failure))
        return
    seconds = time.perf_counter() - started
    say(seconds=seconds, peak_bytes=None if level is None else machine.memory_peak() - level)


if __name__ == "__main__":
    main(sys.argv[1])
