"""The bench measures what it says: peers and engines agree with the oracle, a wrong one is caught."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bench import cases, harness, ours, peers, row, setup
from bench.cases import Case, Problem

ROOT = Path(__file__).resolve().parent.parent
TINY = Case("tiny", 3, 5, 2, (3, 7, 2), (2, 6, 1), gflop=1e-6, rate=0.1)


@pytest.fixture(scope="module")
def problem() -> Problem:
    return TINY.problem(seed=1)


@pytest.fixture(scope="module")
def truth(problem: Problem) -> torch.Tensor:
    return ours.build(problem, "reference", dtype=torch.float64)[0]()


@pytest.mark.parametrize("name", list(peers.PEERS))
def test_every_setting_of_a_peer_agrees_with_the_oracle(
    name: str, problem: Problem, truth: torch.Tensor
) -> None:
    try:
        peer = peers.load(name)
    except ImportError as missing:
        pytest.skip(str(missing))
    for setting, build in peer.variants(problem).items():
        assert harness.error(build()(), truth) < 16 * harness.EPS, setting


def test_the_engine_agrees_with_the_oracle(problem: Problem, truth: torch.Tensor) -> None:
    assert truth.abs().max() > 0
    assert harness.error(ours.build(problem, "cpu", threads=2)[0](), truth) < 16 * harness.EPS


def test_cases_are_those_of_the_design() -> None:
    ring, glyph = cases.RING_MLP, cases.GLYPH_MLP
    assert (ring.tasks, ring.batch, ring.inner_steps, ring.rate) == (32, 32, 5, 0.01)
    assert (glyph.tasks, glyph.batch, glyph.inner_steps, glyph.rate) == (16, 20, 5, 0.01)
    shown = [str(layer) for layer in ring.generator()]
    assert shown[1] == "LeakyReLU(negative_slope=0.2)"
    assert shown[-1] == "Tanh()"
    assert len(glyph.problem().phi) == 32 * 256 + 2 * 256 * 256 + 3 * 256 + 2 * 256 * 256 + 256 + 2 * 256 + 1


def test_problems_repeat() -> None:
    a, b = TINY.problem(seed=3), TINY.problem(seed=3)
    for field in ("phi", "real", "noise", "query", "query_noise"):
        assert torch.equal(getattr(a, field), getattr(b, field))
    assert not torch.equal(a.real, TINY.problem(seed=4).real)


def rows_of(monkeypatch: pytest.MonkeyPatch, *, engines: list[str], names: list[str]) -> list[row.Row]:
    monkeypatch.setattr(harness, "PRODUCT", 64)
    return harness.run_case(
        TINY,
        engines=engines,
        peer_names=names,
        rounds=1,
        threads=1,
        limit=5,
        command="x",
        say=lambda line: None,
    )


def test_a_run_fills_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, peer = rows_of(monkeypatch, engines=["cpu"], names=["torch_func"])
    for filled in (engine, peer):
        assert filled.median_ms is not None
        assert filled.q20_ms is not None
        assert filled.q80_ms is not None
        assert 0 < filled.q20_ms <= filled.median_ms <= filled.q80_ms
        assert filled.gflops is not None
        assert filled.first_call_s is not None
        assert filled.oracle_error is not None
    assert engine.ratio_to_best_peer == pytest.approx(peer.median_ms / engine.median_ms)  # type: ignore[operator]
    assert peer.ratio_to_best_peer is None
    text = row.table([engine, peer])
    assert len({len(line) for line in text.splitlines()}) == 1


class WrongPeer:
    """Off by a tenth of a percent: a missing second-order term of the size that a detach costs."""

    VERSIONS = ("torch",)

    def variants(self, problem: Problem) -> dict[str, object]:
        right = ours.build(problem, "reference")[0]
        return {"scaled": lambda: lambda: right() * 1.001}


def test_a_wrong_peer_is_not_timed_and_a_missing_one_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str) -> object:
        if name == "missing":
            raise ImportError("No module named 'nowhere'")
        return WrongPeer()

    monkeypatch.setattr(peers, "load", load)
    engine, wrong, missing = rows_of(monkeypatch, engines=["cpu"], names=["wrong", "missing"])
    assert wrong.median_ms is None
    assert "against the oracle" in wrong.note
    assert missing.median_ms is None
    assert "not installed" in missing.note
    assert engine.ratio_to_best_peer is None  # no peer ran


def test_an_unsupported_case_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "TINY", dataclasses.replace(TINY, supported=False))
    (only,) = rows_of(monkeypatch, engines=["cpu"], names=[])
    assert "not supported" in only.note


def test_setup_installs_what_the_extra_lists() -> None:
    assert {r.split(">")[0] for r in setup.requirements()} == {
        "higher",
        "jax",
        "pytest-benchmark",
        "torchopt",
    }


def test_the_command(tmp_path: Path) -> None:
    out = tmp_path / "rows.json"
    arguments = ["--case", "glyph-dcgan", "--peer", "torch_func", "--rounds", "1", "--json", str(out)]
    done = subprocess.run(
        [sys.executable, "-m", "bench", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONWARNINGS": "error"},
    )
    assert done.returncode == 0, done.stderr
    fields = json.loads(out.read_text())[0]
    assert set(fields) == {
        *(
            "case",
            "engine",
            "pass",
            "order",
            "objective",
            "tasks",
            "threads",
            "median_ms",
            "q20_ms",
            "q80_ms",
        ),
        *("ratio_to_best_peer", "gflops", "roofline", "bytes_min", "peak_rss_mb", "arena_mb", "first_call_s"),
        *("oracle_error", "device", "versions", "commit", "command", "note"),
    }
    assert "not supported" in fields["note"]


@pytest.mark.parametrize(
    "arguments", [["--case", "no"], ["--peer", "no"], ["--rounds", "0"], ["--threads", "0"]]
)
def test_the_command_refuses_what_it_does_not_know(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "expected" in done.stderr
    assert "Traceback" not in done.stderr
