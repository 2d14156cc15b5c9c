"""Scaling tables hold what they say, and what is counted of a pass is what the engine does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from bench import cases, harness, ours, scaling, work
from bench.cases import PASSES, Case, Pass

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    threads = torch.get_num_threads()
    monkeypatch.setattr(harness, "PRODUCT", 64)
    monkeypatch.setattr(scaling, "ROUNDS", 1)
    yield
    torch.set_num_threads(threads)


def test_axes_are_those_of_the_issue() -> None:
    ends = {axis: (scaling.points(axis, 2)[0][0], scaling.points(axis, 2)[-1][0]) for axis in scaling.AXES}
    assert ends == {
        "tasks": (1, 1024),
        "batch": (1, 256),
        "width": (8, 512),
        "steps": (1, 1000),
        "threads": (1, 2),
    }
    assert (1000, "nested") in scaling.points("steps", 2)
    assert (10, "auto") in scaling.points("steps", 2)


def test_a_point_varies_one_size_of_ring_mlp() -> None:
    ring = cases.RING_MLP
    wide = scaling.case_at("width", 128)
    assert wide.generator_widths == (16, 128, 128, 2)
    assert wide.discriminator_widths == (2, 128, 128, 1)
    assert (wide.tasks, wide.batch, wide.inner_steps) == (ring.tasks, ring.batch, ring.inner_steps)
    assert scaling.case_at("steps", 7).inner_steps == 7
    assert scaling.case_at("tasks", 7).tasks == 7
    assert scaling.case_at("batch", 7).batch == 7
    assert scaling.case_at("threads", 2) is ring
    assert scaling.case_at("tasks", 32) is ring


def test_a_point_is_filled() -> None:
    point = scaling.measure("tasks", 2, "auto", threads=1)
    assert point["note"] == ""
    assert point["us_per_task_step"] == pytest.approx(point["median_ms"] * 1e3 / (2 * 5))
    assert point["gflops"] == pytest.approx(2.0362 * 2 / 32 / point["median_ms"] * 1e3, rel=1e-3)
    assert point["roofline"] > 0
    assert len(scaling.table([point]).splitlines()) == 3


def test_buffers_grow_with_steps_unless_nested() -> None:
    few, many = (
        {steps: scaling.measure("steps", steps, storage, threads=1)["arena_mb"] for steps in (10, 50)}
        for storage in ("nested", "auto")
    )
    assert few[50] < 1.5 * few[10]
    assert many[50] > 3 * many[10]


def test_a_point_that_cannot_be_had_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(*_: object, **__: object) -> None:
        raise RuntimeError("you tried to allocate too much")

    monkeypatch.setattr(ours, "build", build)
    point = scaling.measure("tasks", 2, "auto", threads=1)
    assert point["note"] == "you tried to allocate too much"
    assert point["median_ms"] is None
    assert "too much" in scaling.table([point])


def test_the_command(tmp_path: Path) -> None:
    out = tmp_path / "points.json"
    done = subprocess.run(
        [sys.executable, "-m", "bench", "scaling", "--axis", "threads", "--threads", "1", "--json", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONWARNINGS": "error"},
    )
    assert done.returncode == 0, done.stderr
    (point,) = json.loads(out.read_text())
    assert (point["axis"], point["value"], point["threads"]) == ("threads", 1, 1)
    assert point["command"] == f"python -m bench scaling --axis threads --threads 1 --json {out}"
    assert point["device"] in done.stdout


@pytest.mark.parametrize("which", PASSES)
@pytest.mark.parametrize("name", ["ring-mlp", "glyph-mlp"])
def test_frozen_work_is_what_the_program_counts(name: str, which: Pass) -> None:
    case = cases.CASES[name]
    frozen, program = work.gflop(case, which), work.gflop(Case(**{**vars(case), "gflop": None}), which)
    # The second-order figure is the design's, rounded up; the others are exact.
    assert frozen == (
        pytest.approx(program, rel=0.01) if which == "meta" else pytest.approx(program, rel=1e-12)
    )


def test_counts_add_up_over_tasks_and_steps() -> None:
    case = Case("tiny", 3, 5, 2, (3, 7, 2), (2, 6, 1))
    _, engine = ours.build(case.problem(), "cpu", threads=1)
    program = engine.program  # type: ignore[attr-defined]
    for what in ("flops", "bytes"):
        adapt, first, meta = (work.count(program, case, which, what) for which in ("adapt", "first", "meta"))  # type: ignore[arg-type]
        step = getattr(program.step, what)
        assert adapt == 3 * 2 * step
        assert first == adapt + 3 * getattr(program.gradients(full=False), what)
        last, zeroth = (program.pull(["GD", "GD"], keep) for keep in (["GD", "GD"], ["G", "D"]))
        pulls = getattr(last, what) + getattr(zeroth, what)
        assert meta == adapt + 3 * (getattr(program.gradients(full=True), what) + pulls)


def test_the_ledger_tells_what_an_engine_holds() -> None:
    case = Case("tiny", 3, 5, 2, (3, 7, 2), (2, 6, 1))
    step, engine = ours.build(case.problem(), "cpu", threads=1)
    pool = engine._pool  # type: ignore[attr-defined]
    core = engine._core  # type: ignore[attr-defined]
    held = work.arena_bytes(engine, step.run)
    assert engine._pool is pool  # type: ignore[attr-defined]
    # Of one thread: the tasks share it.
    saved, pull = (
        core.saved_elements(2),
        core.pullback_workspace(["GD", "GD"], ["G", "D"], False, False, 2, 1),
    )
    others = core.adapt_workspace(1) + core.gradients_workspace(True, 1)
    assert held is not None
    assert 4 * (saved + pull) <= held <= 4 * (saved + pull + others)
    assert work.arena_bytes(ours.build(case.problem(), "reference")[1], lambda: None) is None
