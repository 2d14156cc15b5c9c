"""`bench compare` tells a slowdown from noise, and says what it does not compare."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench import compare
from bench.row import Row, write_json


def row(median: float | None, *, spread: float = 0.02, **fields: Any) -> dict[str, Any]:
    """A row of ours whose quantiles lie `spread` below and above the median."""
    made = Row("ring-mlp", fields.pop("engine", "cpu"), 32, 2, **{"device": "here", **fields})
    if median is not None:
        made.median_ms, made.q20_ms, made.q80_ms = median, median * (1 - spread), median * (1 + spread)
    return made.as_dict()


def run(folder: Path, old: list[dict[str, Any]], new: list[dict[str, Any]], *options: str) -> int:
    write_json(folder / "old", old)
    write_json(folder / "new", new)
    return compare.main([str(folder / "old"), str(folder / "new"), *options])


@pytest.mark.parametrize(
    ("old", "new", "spread", "code"),
    [
        (20.0, 20.0, 0.02, 0),
        (20.0, 30.0, 0.02, 1),
        (30.0, 20.0, 0.02, 0),
        (20.0, 21.5, 0.02, 1),  # 7.5 %: the ranges are 3.3 % apart
        (20.0, 21.0, 0.02, 0),  # 5 %: apart, but by less than the tolerance
        (20.0, 30.0, 0.25, 0),  # as much slower as above, in runs that say little
    ],
)
def test_a_slowdown_is_one_beyond_the_quantiles(
    tmp_path: Path, old: float, new: float, spread: float, code: int
) -> None:
    assert run(tmp_path, [row(old, spread=spread)], [row(new, spread=spread)]) == code


def test_the_tolerance_is_an_option(tmp_path: Path) -> None:
    assert run(tmp_path, [row(20.0)], [row(21.0)], "--tolerance", "0") == 1
    assert run(tmp_path, [row(20.0)], [row(30.0)], "--tolerance", "0.6") == 0


def test_rows_that_cannot_be_compared_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = [row(20.0), row(20.0, which="first"), row(20.0, which="adapt"), row(20.0, engine="torch")]
    new = [
        row(20.0),
        row(90.0, which="first", device="there"),
        row(None, which="adapt", note="it broke"),
        row(90.0, engine="jax"),
    ]
    assert run(tmp_path, old, new) == 0
    said = capsys.readouterr().out
    for words in (
        "other device: here, then there",
        "not timed in NEW: it broke",
        "only in OLD",
        "only in NEW",
    ):
        assert words in said
    assert "0 of 1 rows of ours are slower" in said


def test_passes_are_not_mixed_up(tmp_path: Path) -> None:
    assert run(tmp_path, [row(20.0), row(90.0, which="first")], [row(90.0, which="first"), row(20.0)]) == 0


def test_a_peer_that_became_slower_is_shown_and_no_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, [row(20.0), row(20.0, engine="jax")], [row(20.0), row(40.0, engine="jax")]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "jax" in line]
    assert "slower" in line
    assert "2.000" in line


def test_nothing_to_compare_is_no_success(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, [row(20.0)], [row(20.0, device="there")]) == 2
    assert "nothing compared" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["{}", "[1]", "no JSON", "[{}]"])
def test_a_file_that_holds_no_rows_is_refused(
    tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad").write_text(text)
    write_json(tmp_path / "good", [row(20.0)])
    with pytest.raises(SystemExit) as ended:
        compare.main([str(tmp_path / "bad"), str(tmp_path / "good")])
    assert ended.value.code == 2
    assert "expected" in capsys.readouterr().err


def test_two_rows_of_the_same_are_refused(tmp_path: Path) -> None:
    (tmp_path / "twice").write_text(json.dumps([row(20.0), row(21.0)]))
    with pytest.raises(ValueError, match="expected one row of ring-mlp, cpu, pass meta, 2 threads, got two"):
        compare.read(tmp_path / "twice")


def test_a_file_that_is_not_there_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        compare.main([str(tmp_path / "a"), str(tmp_path / "b")])
    assert "No such file" in capsys.readouterr().err
