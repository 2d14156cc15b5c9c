"""One first call in a fresh process: how long it takes, how much memory it needs, and whether it ends in time.

Nothing stops a compiler that runs inside this process, so whoever takes part is first tried in a process of its own, which can
be killed. It also gives figures that no process with many libraries in it could: the time from nothing to the first result, and
the memory above the level after import.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from . import machine
from .cases import Case, Pass, Problem, Step

MARK = "bench.probe "  # what the child has to say begins so; a library may print lines of its own
ROOT = Path(__file__).resolve().parent.parent


class ProbeFailed(Exception):
    """The first call did not end, or not in time."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """One way of computing one pass: enough to build it, in this process or in another.

    Attributes:
        case, which, threads: what is computed, and with how many cores.
        engine: a name for ``pymgan.compile``, or "" for a peer.
        storage: of that engine.
        module: of a peer, such as "bench.peers.autograd", or "" for an engine.
        setting: one of the peer's variants.
    """

    case: Case
    which: Pass
    threads: int
    engine: str = ""
    storage: str = "auto"
    module: str = ""
    setting: str = ""

    def load(self) -> None:
        """Imports all that `build` needs."""
        importlib.import_module(self.module or "bench.ours")

    def build(self, problem: Problem) -> Step:
        """Compiles nothing that its library would compile at the first call."""
        if self.module:
            made: Step = importlib.import_module(self.module).variants(problem, self.which)[self.setting]()
            return made
        from . import ours

        step, _ = ours.build(problem, self.engine, self.which, threads=self.threads, storage=self.storage)
        return step

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
    command = [sys.executable, "-m", "bench.probe", entry.as_json()]
    with (
        tempfile.TemporaryFile() as errors,
        # A session of its own: compilers start further processes, which must end with it. Unbuffered, so that the first
        # line can be read alone.
        subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            bufsize=0,
            start_new_session=True,
        ) as child,
    ):
        said: dict[str, Any] = {}
        try:
            if _read(child) is not None:
                rest, _ = child.communicate(timeout=limit)
                said = _last(rest.decode(errors="replace"))
            child.wait()
        except subprocess.TimeoutExpired:
            raise ProbeFailed(f"first call not done after {limit:g} s (--first-limit)") from None
        finally:
            _end(child)
        if "seconds" in said:
            return Probe(**said)
        errors.seek(0)
        tail = errors.read().decode(errors="replace").strip().splitlines()[-1:]
        ended = ": ".join([f"its process ended with {child.returncode}", *tail])
        raise ProbeFailed(said.get("error") or ended)


def _read(child: subprocess.Popen[bytes]) -> dict[str, Any] | None:
    """The child's next message; None when there is none."""
    if child.stdout is None:
        return None
    for line in iter(child.stdout.readline, b""):
        if line.startswith(MARK.encode()):
            return _last(line.decode())
    return None


def _last(text: str) -> dict[str, Any]:
    lines = [line for line in text.splitlines() if line.startswith(MARK)]
    found: dict[str, Any] = json.loads(lines[-1][len(MARK) :]) if lines else {}
    return found


def _end(child: subprocess.Popen[bytes]) -> None:
    """Kills what is left of the child's session."""
    with contextlib.suppress(
        ProcessLookupError, PermissionError
    ):  # nothing is left (macOS says the latter of a zombie)
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _say(**fields: Any) -> None:
    print(MARK + json.dumps(fields), flush=True)


def main(text: str) -> None:
    """The child's side: says that it is ready once its libraries are imported, then what its first call cost."""
    entry = Entry.from_json(text)
    import torch

    torch.set_num_threads(entry.threads)
    entry.load()
    level = machine.memory_level()
    _say(ready=True)
    problem = entry.case.problem()
    started = time.perf_counter()
    try:
        entry.build(problem).run()
    except Exception as failure:  # whatever a library raises becomes a note in its row
        lines = str(failure).strip().splitlines() or ["no message"]
        _say(error=f"{type(failure).__name__}: {lines[0]}")
        return
    seconds = time.perf_counter() - started
    _say(seconds=seconds, peak_bytes=None if level is None else machine.memory_peak() - level)


if __name__ == "__main__":
    main(sys.argv[1])
