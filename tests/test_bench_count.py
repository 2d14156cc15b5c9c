"""The instructions of a meta-step stay within the recorded budget, and the count sees work."""

from __future__ import annotations

import pytest

from bench import count
from bench.cases import CASES, RING_MLP, Case


def counted(case: Case) -> int:
    try:
        return count.count(case)
    except count.NotCounted as reason:
        pytest.skip(str(reason))


@pytest.mark.parametrize("name", ["ring-mlp", pytest.param("glyph-mlp", marks=pytest.mark.slow)])
def test_no_case_takes_more_instructions_than_its_budget(name: str) -> None:
    recorded = count.budget()
    if recorded["compiler"] != count.compiler():
        pytest.skip(f"the budget is for {recorded['compiler']}, this build is by {count.compiler()}")
    allowed = recorded["counts"][name] * (1 + count.TOLERANCE)
    now = counted(CASES[name])
    assert now <= allowed, f"a change that is meant to take more comes with: {count.COMMAND}"


def test_the_count_is_that_of_the_work() -> None:
    one, three = (counted(RING_MLP.altered(inner_steps=steps)) for steps in (1, 3))
    # A multiply-add on 8 floats is 16 FLOP, and there is more to do than those.
    assert 1e6 < one < 1e7
    assert 2 < three / one < 4


def test_every_case_has_a_budget() -> None:
    recorded = count.budget()
    assert set(recorded["counts"]) == set(count.counted_cases())
    assert recorded["isa"] == count.ISA
    assert recorded["command"] == count.COMMAND


def test_the_build_says_its_compiler() -> None:
    assert count.compiler().startswith(("GCC: ", "clang version "))


def test_without_valgrind_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert count.main(["--case", "ring-mlp"]) == 2
    assert "valgrind is not installed" in capsys.readouterr().out


def test_what_takes_more_than_its_budget_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded = count.budget()["counts"]["ring-mlp"]
    monkeypatch.setattr(count, "compiler", lambda: count.budget()["compiler"])
    for factor, code in ((1.02, 1), (1.005, 0), (0.5, 0)):
        monkeypatch.setattr(count, "count", lambda case, factor=factor: int(factor * recorded))
        assert count.main(["--case", "ring-mlp"]) == code
    assert "-50.00%" in capsys.readouterr().out
