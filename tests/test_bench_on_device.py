"""`bench device`: its plan, and that phases are limited, do not stop each other, and leave small files."""

from __future__ import annotations

import os
import sys
import tarfile
from pathlib import Path

import pytest

from bench import device
from bench.device import PHASES, Ended, Phase


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


def planned(*argv: str, limits: dict[str, float] | None = None) -> dict[str, Phase]:
    phases = device.plan(device._arguments(list(argv)), {**PHASES, **(limits or {})})
    return {phase.name: phase for phase in phases}


def test_the_plan_has_every_phase_and_fits_into_nine_minutes() -> None:
    phases = planned()
    assert list(phases) == ["build", "battery", "bench", "profile", "sanitize"]
    assert sum(phase.limit for phase in phases.values()) <= device.LIMIT < 540
    assert "gpu" in phases["battery"].commands[0]
    assert "-k" not in phases["battery"].commands[0]
    assert planned("--tests", "cuda")["battery"].commands[0][-2:] == ("-k", "cuda")
    (bench,) = phases["bench"].commands
    assert bench[bench.index("--budget") + 1] == device.BUDGET  # it ends by itself, with a table
    (profile,) = phases["profile"].commands
    assert bench[bench.index("--profile") + 1] == profile[4]  # counters go where the traces are


def test_phases_are_chosen_and_options_handed_on(tmp_path: Path) -> None:
    phases = planned(
        *("--only", "bench", "--only", "build", "--commit", "abc", "--out", str(tmp_path)),
        *("--", "--case", "ring-mlp"),
        limits={"bench": 100.0},
    )
    assert list(phases) == ["build", "bench"]
    (bench,) = phases["bench"].commands
    assert bench[-2:] == ("--case", "ring-mlp")
    assert bench[bench.index("--commit") + 1] == "abc"
    assert phases["bench"].limit == 100
    assert bench[bench.index("--json") + 1] == str(tmp_path / "bench.json")


def test_a_carried_wheel_of_pymgan_is_not_built_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "WHEELS", tmp_path)
    assert planned()["build"].commands[0][-1] == "."
    (tmp_path / "pymgan-0.whl").touch()
    assert ["." in command for command in planned()["build"].commands] == [False, False]


def test_wheels_that_were_carried_are_installed_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert len(planned()["build"].commands) == 2 + bool(list(device.WHEELS.glob("*.whl")))
    (tmp_path / "higher-1.whl").touch()
    monkeypatch.setattr(device, "WHEELS", tmp_path)
    assert planned()["build"].commands[0][-1] == str(tmp_path / "higher-1.whl")


def test_a_phase_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    said: list[str] = []
    phases = [
        Phase("good", 60, (python("print('here')"), python("import os; print(os.environ['X'])"))),
        Phase("bad", 60, (python("raise SystemExit(3)"), python("print('never')"))),
        Phase("slow", 0.5, (python("import time; time.sleep(60)"),)),
        Phase("absent", 60, (("nowhere-to-be-found",),)),
    ]
    environment = {**os.environ, "X": "handed on"}
    ended = device.run(phases, tmp_path, limit=60, environment=environment, say=said.append)
    assert [each.says for each in ended] == [
        "ok",
        "exit code 3",
        "stopped after 0 s",
        "not run: nowhere-to-be-found is not on the PATH",
    ]
    assert "handed on" in (tmp_path / "good.log").read_text()
    assert "\nnever" not in (tmp_path / "bad.log").read_text()
    assert ended[2].seconds < 30
    assert any("here" in each for each in said)


def test_a_phase_that_is_stopped_may_say_what_it_knows(tmp_path: Path) -> None:
    """pytest's failures, say; one that does not end then is ended."""
    heard = (
        "signal.signal(signal.SIGINT, signal.default_int_handler)"  # which a shell's background jobs ignore
    )
    patient = (
        f"import signal, time; {heard}\ntry: time.sleep(60)\nexcept KeyboardInterrupt: print('last words')"
    )
    deaf = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    phases = [Phase("patient", 3, (python(patient),)), Phase("deaf", 3, (python(deaf),))]
    ended = device.run(phases, tmp_path, limit=60, environment=dict(os.environ), say=lambda _: None)
    assert "last words" in (tmp_path / "patient.log").read_text()
    assert ended[0].seconds < 3 + device.LAST_WORDS
    assert "deaf" in (tmp_path / "deaf.log").read_text()
    assert ended[1].seconds < 30


def test_the_bench_has_what_others_leave(tmp_path: Path) -> None:
    says = python("import sys; print('budget', sys.argv[-1])")
    phases = [
        Phase("early", 60, (python("pass"),)),
        Phase("bench", 20, ((*says, device.BUDGET),), is_stretched=True),
        Phase("late", 30, ((*says, device.BUDGET),)),
    ]
    ended = device.run(phases, tmp_path, limit=100, environment=dict(os.environ), say=lambda _: None)
    assert all(each.is_ok for each in ended)

    def budget(name: str) -> float:
        return float((tmp_path / f"{name}.log").read_text().split()[-1])

    assert 45 < budget("bench") <= 100 - 30 - device.SPARE
    assert budget("late") == 30 - device.SPARE


def test_what_does_not_fit_into_the_limit_is_not_run(tmp_path: Path) -> None:
    (only,) = device.run(
        [Phase("x", 60, (python("pass"),))], tmp_path, limit=0, environment={}, say=lambda _: None
    )
    assert only.says == "not run: the 0 s are spent (--limit)"
    assert not only.is_ok


def test_logs_are_packed_and_what_is_too_large_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    logs = tmp_path / "logs"
    (logs / "profile").mkdir(parents=True)
    (logs / "build.log").write_text("built")
    (logs / "profile" / "trace.json").write_bytes(os.urandom(100_000))
    monkeypatch.setattr(device, "LARGEST", 10_000)
    said: list[str] = []
    device.pack(logs, tmp_path, said.append)
    with tarfile.open(tmp_path / "logs.tar.gz") as archive:
        assert archive.getnames() == ["build.log"]
    assert said == ["left out of logs.tar.gz, 0 MB: profile/trace.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["logs.tar.gz"]


def test_the_summary_has_a_line_a_phase() -> None:
    text = device.summary([Ended("build", "ok", 61.2), Ended("bench", "exit code 1", 100.0)])
    assert text.splitlines() == [
        "build          61 s  ok",
        "bench         100 s  exit code 1",
        "together      161 s",
    ]


def test_the_command_says_how_it_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for code in (0, 1):
        phases = [Phase("bench", 60, (python(f"raise SystemExit({code})"),))]
        monkeypatch.setattr(device, "plan", lambda args, limits, phases=phases: phases)
        out = tmp_path / str(code)
        assert device.main(["--out", str(out), "--site", str(tmp_path / "site")]) == code
        assert sorted(path.name for path in out.iterdir()) == ["logs.tar.gz", "summary.txt"]
        assert capsys.readouterr().out.splitlines()[-1].startswith("together")


def test_a_dry_run_runs_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert device.main(["--dry-run", "--only", "battery", "--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.startswith("battery, at most 120 s\n    ")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("limit", ["bench", "bench=x", "no=3"])
def test_limits_of_phases_are_checked(limit: str) -> None:
    with pytest.raises(SystemExit) as ended:
        device.main(["--phase-limit", limit, "--dry-run"])
    assert ended.value.code == 2
