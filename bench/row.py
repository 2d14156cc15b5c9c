"""One row of results, and the table that people read."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any


@dataclasses.dataclass
class Row:
    """What is known of one contestant on one case. None: not measured (or not yet measurable)."""

    case: str
    engine: str
    tasks: int
    threads: int
    order: int = 2
    objective: str = "game"
    median_ms: float | None = None
    q20_ms: float | None = None
    q80_ms: float | None = None
    ratio_to_best_peer: float | None = None
    gflops: float | None = None
    roofline: float | None = None
    bytes_min: int | None = None
    peak_rss_mb: float | None = None
    arena_mb: float | None = None
    first_call_s: float | None = None
    oracle_error: float | None = None
    device: str = ""
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    commit: str = ""
    command: str = ""
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The row as JSON holds it; `pass` is a keyword of Python's, so it is no field."""
        fields = dataclasses.asdict(self)
        return {"case": fields.pop("case"), "engine": fields.pop("engine"), "pass": "meta", **fields}


COLUMNS = (
    ("case", lambda r: r.case),
    ("engine", lambda r: r.engine),
    ("median ms", lambda r: _number(r.median_ms, 4)),
    ("q20", lambda r: _number(r.q20_ms, 4)),
    ("q80", lambda r: _number(r.q80_ms, 4)),
    ("x best peer", lambda r: _number(r.ratio_to_best_peer, 3)),
    ("GFLOP/s", lambda r: _number(r.gflops, 3)),
    ("of product", lambda r: "" if r.roofline is None else f"{r.roofline:.0%}"),
    ("first call s", lambda r: _number(r.first_call_s, 2)),
    ("error", lambda r: "" if r.oracle_error is None else f"{r.oracle_error:.1e}"),
    ("note", lambda r: r.note),
)


def table(rows: Sequence[Row]) -> str:
    """Markdown, so that it can be pasted where figures are shown."""
    cells = [[name for name, _ in COLUMNS], *([show(row) for _, show in COLUMNS] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(COLUMNS))]
    lines = [
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |"
        for line in cells
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]])


def _number(value: float | None, digits: int) -> str:
    """`digits` significant ones, without an exponent."""
    if value is None:
        return ""
    whole = len(str(int(abs(value)))) if abs(value) >= 1 else 0
    return f"{value:.{max(0, digits - whole)}f}"
