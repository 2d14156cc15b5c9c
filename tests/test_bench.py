"""The bench measures what it says: peers and engines agree with the oracle, a wrong one is caught."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bench import cases, kinks, ours, peers, row, setup, work
from bench.cases import PASSES, Case, Gflop, Pass, Problem
from bench.oracle import EPS, Oracle, WrongResult

ROOT = Path(__file__).resolve().parent.parent
TINY = Case("tiny", 3, 5, 2, (3, 7, 2), (2, 6, 1), gflop=Gflop(3e-6, 2e-6, 1e-6), rate=0.1)
TINY_IMAGES = Case("images", 2, 2, 2, (3, 2, 1), (1, 2, 1), rate=0.1, extent=8)
INTERPRETED = [name for name in peers.PEERS if name != "torch_compile"]


@pytest.fixture(scope="module")
def problem() -> Problem:
    return TINY.problem(seed=1)


@pytest.fixture(scope="module")
def oracles(problem: Problem) -> dict[Pass, Oracle]:
    return {which: Oracle(problem, which) for which in PASSES}


def peer_of(name: str) -> peers.Peer:
    try:
        return peers.load(name)
    except ImportError as missing:
        pytest.skip(str(missing))


@pytest.mark.parametrize("which", PASSES)
@pytest.mark.parametrize("name", INTERPRETED)
def test_every_setting_of_a_peer_agrees_with_the_oracle(
    name: str, which: Pass, problem: Problem, oracles: dict[Pass, Oracle]
) -> None:
    peer = peer_of(name)
    assert which in peer.PASSES
    for setting, build in peer.variants(problem, which).items():
        step = build()
        for _ in range(2):  # the first call must leave nothing behind
            assert oracles[which].error(step()) < 16 * EPS, setting


@pytest.mark.parametrize("name", [*INTERPRETED, "cpu"])
def test_every_contestant_makes_images(name: str) -> None:
    problem = TINY_IMAGES.problem(seed=1)
    for which in PASSES:
        oracle = Oracle(problem, which)
        build = (
            (lambda which=which: ours.build(problem, "cpu", which)[0])
            if name == "cpu"
            else next(iter(peer_of(name).variants(problem, which).values()))
        )
        assert oracle.error(build()()) < 16 * EPS, which


@pytest.mark.parametrize("which", PASSES)
def test_torch_compile_captures_the_whole_pass(
    which: Pass, problem: Problem, oracles: dict[Pass, Oracle], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The graph, without inductor's half minute of C++ for each; its results are checked where they are timed."""
    peer = peer_of("torch_compile")
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    step = peer.variants(problem, which)["shared"]()
    assert oracles[which].error(step()) < 16 * EPS


@pytest.mark.parametrize("which", PASSES)
def test_the_engine_agrees_with_the_oracle(
    which: Pass, problem: Problem, oracles: dict[Pass, Oracle]
) -> None:
    assert oracles[which].truth.abs().max() > 0
    for engine in ("cpu", "torch"):
        assert oracles[which].error(ours.build(problem, engine, which, threads=2)[0]()) < 16 * EPS


def test_passes_are_three_different_things(problem: Problem, oracles: dict[Pass, Oracle]) -> None:
    meta, first, adapt = (oracles[which].truth for which in PASSES)
    assert meta.shape == first.shape == problem.phi.shape
    assert adapt.shape == (TINY.tasks, len(problem.phi))
    assert (meta - first).norm() > 0.01 * meta.norm()  # the pull-back does something


@pytest.mark.parametrize("which", PASSES)
def test_the_oracle_lets_float32_through_and_nothing_worse(
    which: Pass, problem: Problem, oracles: dict[Pass, Oracle]
) -> None:
    oracle = oracles[which]
    right = oracle.truth.float()
    assert oracle.check(right) < EPS * 10
    moved = right - problem.phi if which == "adapt" else right
    for wrong in (right + 1e-3 * moved, right * float("nan"), torch.zeros_like(right)):
        with pytest.raises(WrongResult, match="against the oracle"):
            oracle.check(wrong)
    with pytest.raises(WrongResult, match="expected a result of"):
        oracle.check(right[..., :-1])


def test_cases_are_those_of_the_design() -> None:
    ring, glyph, images = cases.CASES.values()
    assert (ring.tasks, ring.batch, ring.inner_steps, ring.rate) == (32, 32, 5, 0.01)
    assert (glyph.tasks, glyph.batch, glyph.inner_steps, glyph.rate) == (16, 20, 5, 0.01)
    shown = [str(layer) for layer in ring.networks(seed=0)[0]]
    assert shown[1] == "LeakyReLU(negative_slope=0.2)"
    assert shown[-1] == "Tanh()"
    assert len(glyph.problem().phi) == 32 * 256 + 2 * 256 * 256 + 3 * 256 + 2 * 256 * 256 + 256 + 2 * 256 + 1
    assert (images.tasks, images.batch, images.inner_steps, images.rate) == (8, 10, 5, 0.01)
    for network, widths in zip(
        images.networks(seed=0), (images.generator_widths, images.discriminator_widths), strict=True
    ):
        layers = [m for m in network if hasattr(m, "kernel_size")]
        assert [m.in_channels for m in layers] + [layers[-1].out_channels] == [*widths]
        assert {m.kernel_size for m in layers} == {(4, 4)}
    assert images.problem().real.shape[2:] == (10, 1, 32, 32)


@pytest.mark.parametrize("case", cases.CASES.values(), ids=lambda case: case.name)
def test_frozen_work_is_what_the_program_counts(case: Case) -> None:
    frozen = case.gflop
    assert frozen is not None
    for which in PASSES:
        counted = work.gflop(dataclasses.replace(case, gflop=None), which)
        assert counted == pytest.approx(getattr(frozen, which), rel=0.01 if which == "meta" else 1e-9)


@pytest.mark.parametrize(("name", "margin"), [("ring-mlp", 1.0e-6), ("glyph-mlp", 2.3e-7)])
def test_no_pre_activation_comes_close_to_a_kink(name: str, margin: float) -> None:
    """Or rounding decides on which side a sample is, and a right result is off by far more than rounding."""
    case = cases.CASES[name]
    assert kinks.margin(case.problem()) > margin
    assert kinks.margin(case.problem(0)) < margin / 10  # what an unlucky seed is like


def test_problems_repeat() -> None:
    a, b = TINY.problem(seed=3), TINY.problem(seed=3)
    for field in ("phi", "real", "noise", "query", "query_noise"):
        assert torch.equal(getattr(a, field), getattr(b, field))
    assert not torch.equal(a.real, TINY.problem(seed=4).real)


def test_an_altered_case_says_so_and_has_no_frozen_work() -> None:
    more = cases.RING_MLP.altered(inner_steps=100)
    assert (more.name, more.inner_steps, more.gflop) == ("ring-mlp inner_steps=100", 100, None)
    assert cases.RING_MLP.altered(inner_steps=5) is cases.RING_MLP


def test_order_and_objective_follow_from_the_pass() -> None:
    for which, order, objective in (("meta", 2, "game"), ("first", 1, "game"), ("adapt", 0, None)):
        fields = row.Row("x", "cpu", 1, 1, which=which).as_dict()  # type: ignore[arg-type]
        assert (fields["pass"], fields["order"], fields["objective"]) == (which, order, objective)


def test_setup_installs_what_the_extra_lists() -> None:
    assert {r.split(">")[0] for r in setup.requirements()} == {
        "higher",
        "jax",
        "pytest-benchmark",
        "torchopt",
    }


def test_the_command(tmp_path: Path) -> None:
    out = tmp_path / "rows.json"
    arguments = [
        "--case",
        "ring-mlp",
        "--peer",
        "none",
        "--pass",
        "adapt",
        "--rounds",
        "1",
        "--json",
        str(out),
    ]
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
    assert (fields["case"], fields["engine"]) == ("ring-mlp", "cpu")
    assert fields["median_ms"] > 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["--case", "no"],
        ["--peer", "no"],
        ["--rounds", "0"],
        ["--threads", "0"],
        ["--pass", "no"],
        ["--steps", "0"],
        ["compare", "nowhere", "nowhere"],
        ["scaling", "--axis", "no"],
        ["scaling", "--threads", "0"],
        ["count", "--case", "no"],
        ["setup", "no"],
    ],
)
def test_the_command_refuses_what_it_does_not_know(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "error:" in done.stderr
    assert "Traceback" not in done.stderr


def test_throughput_is_tracked_by_pytest_benchmark(pytestconfig: pytest.Config) -> None:
    """Every case and pass; not a part of the plain run, whose paths are these."""
    assert pytestconfig.getini("testpaths") == ["tests"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "0", "bench/", "-v", "--benchmark-disable", "-k", "ring-mlp"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    for which in PASSES:
        assert f"[ring-mlp-{which}] PASSED" in done.stdout
