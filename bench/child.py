"""A process of its own for one contestant: it can be killed, with all that it started, and says what it found line by line."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

MARK = "bench.child "  # what the child has to say begins so; a library may print lines of its own
ROOT = Path(__file__).resolve().parent.parent


LONGEST = 160  # characters of a reason in a table
LEAST = 3.0  # seconds of a budget below which nobody is started


class Budget:
    """Seconds from now on, for everything together; None: without end."""

    def __init__(self, seconds: float | None) -> None:
        self._end = float("inf") if seconds is None else time.monotonic() + seconds

    def left(self) -> float:
        return self._end - time.monotonic()

    def is_spent(self) -> bool:
        """Whether too little is left to start somebody."""
        return self.left() < LEAST


class Child:
    """A module of the bench, run as a program; ended when the context is left.

    Args:
        module: such as "bench.probe".
        arguments: of that program.
    """

    def __init__(self, module: str, *arguments: str) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `close`)
        # A session of its own: compilers start further processes, which must end with it. Unbuffered, so that a line can be
        # read when it is said.
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,
            start_new_session=True,
        )
        self._said: queue.Queue[dict[str, Any] | None] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        stdout = self._process.stdout
        for line in iter(stdout.readline, b"") if stdout is not None else ():
            if line.startswith(MARK.encode()):
                self._said.put(json.loads(line[len(MARK) :]))
        self._said.put(None)

    def message(self, limit: float | None = None) -> dict[str, Any] | None:
        """The next thing that it says; None when it has ended and nothing is left.

        Args:
            limit: seconds to wait; None: for ever.

        Raises:
            TimeoutError: nothing was said in time.
        """
        try:
            said = self._said.get(timeout=limit)
        except queue.Empty:
            raise TimeoutError from None
        if said is None:
            self._said.put(None)
        return said

    def go(self) -> None:
        """Lets a child go on that waits with `wait_for_go`."""
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):  # it has ended; `message` says so
                self._process.stdin.write(b"go\n")

    def reason(self) -> str:
        """Why a child ended that said nothing of it."""
        self._process.wait()
        self._errors.seek(0)
        tail = self._errors.read().decode(errors="replace").strip().splitlines()[-1:]
        return ": ".join([f"its process ended with {self._process.returncode}", *tail])

    def close(self) -> None:
        """Ends it, and what it started."""
        end_session(self._process)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        self._errors.close()

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()


def end_session(process: subprocess.Popen[bytes]) -> None:
    """Kills a process that was started in a session of its own, and what is left of that session."""
    with contextlib.suppress(
        ProcessLookupError, PermissionError
    ):  # nothing is left (macOS says the latter of a zombie)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


# ---- the child's side ----


def one_line(failure: Exception) -> str:
    """Of an exception, whose message may have many, or (out of memory) a very long one."""
    lines = str(failure).strip().splitlines() or ["no message"]
    text = f"{type(failure).__name__}: {lines[0]}"
    return text if len(text) <= LONGEST else text[:LONGEST] + " ..."


def say(**fields: Any) -> None:
    """One message."""
    print(MARK + json.dumps(fields), flush=True)


def wait_for_go() -> None:
    """Until the other side calls `go`; ends the program where that side has ended."""
    if not sys.stdin.readline():
        sys.exit(1)
