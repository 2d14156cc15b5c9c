"""Ctrl-C while something long is under way: the step is ended first, so that its state can be saved."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from .progress import say

__all__ = ["Stop"]


class Stop:
    """While active, SIGINT and SIGTERM only ask: the loop ends its step. A second one stops at once."""

    def __init__(self) -> None:
        self.asked = False
        self._old: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            for kind in (signal.SIGINT, signal.SIGTERM):
                self._old[kind] = signal.signal(kind, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for kind, handler in self._old.items():
            signal.signal(kind, handler)

    def _ask(self, number: int, _: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        say("\nstopping after this step")
