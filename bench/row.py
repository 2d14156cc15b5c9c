"""One row of results, and the table that people read."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .cases import Pass

ORDER: dict[Pass, int] = {"meta": 2, "first": 1, "adapt": 0}  # of the meta-gradient; 0: there is none


@dataclasses.dataclass
class OnDevice:
    """What a row has beside the others' fields when it was run on a GPU. None: not known.

    Attributes:
        driver, cuda, host: versions, and the machine that the device is in.
        tflops: the case's work by the merged count over the median.
        launches: kernels that one call runs, counted by torch's profiler, also those of a CUDA graph.
        occupancy: what the engine says of its kernel.
        device_mb: the most device memory that torch and JAX had allocated in the process, batches included.
        share_matmul, share_matmul_tf32: tflops over what a large product reaches in float32, and in TF32 on tensor cores.
        share_copy: the row's bytes_min, a static count of the program in which each operand moves once, over the median, by what
            a copy on the device reaches. It is not what was moved: that the counters of ncu say.
        ceilings: see `accelerator.Ceilings`; measured in the same process, right after the turns.
    """

    driver: str
    cuda: str
    host: str
    tflops: float
    ceilings: dict[str, float] | None = None
    share_matmul: float | None = None
    share_matmul_tf32: float | None = None
    share_copy: float | None = None
    launches: int | None = None
    occupancy: dict[str, float] | None = None
    device_mb: float | None = None


@dataclasses.dataclass
class Row:
    """What is known of one contestant on one case. None: not measured (or not yet measurable)."""

    case: str
    engine: str
    tasks: int
    threads: int
    which: Pass = "meta"
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
    on_device: OnDevice | None = None

    def as_dict(self) -> dict[str, Any]:
        """The row as JSON holds it; `pass` is a keyword of Python's, so it is no field."""
        fields = dataclasses.asdict(self)
        fields |= fields.pop("on_device") or {}
        return {
            "case": fields.pop("case"),
            "engine": fields.pop("engine"),
            "pass": fields.pop("which"),
            "order": ORDER[self.which],
            "objective": None if self.which == "adapt" else "game",
            **fields,
        }


Column = tuple[str, Callable[[Row], str]]
TIMES: tuple[Column, ...] = (
    ("case", lambda r: r.case),
    ("pass", lambda r: r.which),
    ("engine", lambda r: r.engine),
    ("median ms", lambda r: number(r.median_ms, 4)),
    ("q20", lambda r: number(r.q20_ms, 4)),
    ("q80", lambda r: number(r.q80_ms, 4)),
    ("x best peer", lambda r: number(r.ratio_to_best_peer, 3)),
)
SPEED: tuple[Column, ...] = (
    ("GFLOP/s", lambda r: number(r.gflops, 3)),
    ("of product", lambda r: percent(r.roofline)),
)
REST: tuple[Column, ...] = (
    ("first call s", lambda r: number(r.first_call_s, 2)),
    ("memory MB", lambda r: number(r.peak_rss_mb, 3)),
    ("buffers MB", lambda r: number(r.arena_mb, 3)),
    ("error", lambda r: "" if r.oracle_error is None else f"{r.oracle_error:.1e}"),
    ("note", lambda r: r.note),
)
COLUMNS = (*TIMES, *SPEED, *REST)


def _of_device(show: Callable[[OnDevice], str]) -> Callable[[Row], str]:
    return lambda row: "" if row.on_device is None else show(row.on_device)


DEVICE_COLUMNS: tuple[Column, ...] = (
    *TIMES,
    ("TFLOP/s", _of_device(lambda d: number(d.tflops, 3))),
    ("of matmul", _of_device(lambda d: percent(d.share_matmul))),
    ("of TF32", _of_device(lambda d: percent(d.share_matmul_tf32))),
    ("bytes MB", lambda r: number(None if r.bytes_min is None else r.bytes_min / 1e6, 3)),
    ("of copy", _of_device(lambda d: percent(d.share_copy))),
    ("launches", _of_device(lambda d: "" if d.launches is None else str(d.launches))),
    ("occupancy", _of_device(lambda d: percent((d.occupancy or {}).get("occupancy")))),
    ("device MB", _of_device(lambda d: number(d.device_mb, 3))),
    *REST,
)


def table(rows: Sequence[Row], columns: Sequence[Column] = COLUMNS) -> str:
    """Markdown, so that it can be pasted where figures are shown."""
    return markdown([name for name, _ in columns], [[show(row) for _, show in columns] for row in rows])


def markdown(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table of text, its columns aligned."""
    widths = [max(map(len, column)) for column in zip(header, *lines, strict=True)]
    shown = [
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |"
        for line in (header, *lines)
    ]
    return "\n".join([shown[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *shown[1:]])


def number(value: float | None, digits: int) -> str:
    """`digits` significant ones, without an exponent; "" of None."""
    if value is None:
        return ""
    whole = len(str(int(abs(value)))) if abs(value) >= 1 else 0
    return f"{value:.{max(0, digits - whole)}f}"


def percent(fraction: float | None) -> str:
    """Of a fraction; "" of None."""
    return "" if fraction is None else f"{fraction:.0%}"


def write_json(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """A list of rows, as ``python -m bench compare`` reads it."""
    path.write_text(json.dumps(list(rows), indent=1) + "\n", encoding="utf-8")
