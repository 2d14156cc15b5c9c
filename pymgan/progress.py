"""What a person sees while a run trains: one line before it starts, a bar, one line after."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any

__all__ = ["Bar", "bytes_text", "duration", "say"]


def say(text: str, *, show: bool = True) -> None:
    """One line on stderr; results go to stdout."""
    if show:
        print(text, file=sys.stderr, flush=True)


class Bar:
    """A progress bar over the steps of one method: losses, tasks/s, time left."""

    def __init__(self, label: str, done: int, total: int, tasks_per_step: int, *, show: bool) -> None:
        from tqdm import tqdm

        self._tasks = tasks_per_step
        terminal = sys.stderr.isatty()
        self._bar: Any = tqdm(
            total=total,
            initial=done,
            desc=label,
            unit="step",
            disable=not show,
            file=sys.stderr,
            dynamic_ncols=terminal,
            ncols=None if terminal else 110,
            mininterval=0.2 if terminal else 10.0,
            bar_format="{desc:<11}{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} "
            "[{elapsed}<{remaining}{postfix}]",
        )

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def step(self, metrics: dict[str, float], skipped: int) -> None:
        rate = self._bar.format_dict["rate"]
        losses = f"objective {metrics['objective']:.3f}, G {metrics['loss_g']:.3f}, D {metrics['loss_d']:.3f}"
        tasks = f", {rate * self._tasks:,.0f} tasks/s" if rate else ""
        left_out = f", {skipped} left out" if skipped else ""
        self.advance(losses + tasks + left_out)

    def advance(self, text: str) -> None:
        """One step more, with what there is to say of it."""
        self._bar.set_postfix_str(text, refresh=False)
        self._bar.update(1)


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"


def bytes_text(count: float) -> str:
    """Bytes as a person says them."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
