"""How long an engine was at work."""

from __future__ import annotations

import time

__all__ = ["Stopwatch"]


class Stopwatch:
    """Adds up the seconds that pass inside of its `with` blocks, which may lie in each other."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._depth, self._started = 0, 0.0

    def __enter__(self) -> None:
        if self._depth == 0:
            self._started = time.perf_counter()
        self._depth += 1

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if self._depth == 0:
            self.seconds += time.perf_counter() - self._started
