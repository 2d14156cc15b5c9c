"""What the bench does on a GPU, as far as a CPU can show it: processes, budgets, figures, profiles, cases."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bench import __main__ as command_line
from bench import accelerator, alone, cases, counters, device_child, kinks, ours, peers, row
from bench.cases import CASES, PASSES, Case, Gflop, Pass, Step
from bench.child import ROOT, Budget, Child, one_line
from bench.oracle import Oracle, by_parts
from bench.probe import Entry, ProbeFailed

TINY = Case("tiny", 3, 5, 2, (3, 7, 2), (2, 6, 1), gflop=Gflop(3e-6, 2e-6, 1e-6), rate=0.1)
TINY_IMAGES = Case("images", 2, 2, 2, (3, 2, 1), (1, 2, 1), rate=0.1, extent=8)
no_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")


def settings(**fields: object) -> alone.Settings:
    usual = alone.Settings(
        device="cpu",
        which="meta",
        threads=1,
        storage="auto",
        rounds=1,
        limit=1.0,
        first_limit=60.0,
        command="x",
        commit="abc",
        product=64,
        copied=4096,
    )
    return dataclasses.replace(usual, **fields)  # type: ignore[arg-type]


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bench", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


# ---- cases ----


def test_cases_on_cuda_are_those_of_the_design() -> None:
    found = {case.name: case for case in cases.select(list(CASES), "cuda")}
    assert list(found) == [
        "ring-mlp tasks=132",
        "glyph-mlp tasks=132",
        "glyph-dcgan channels x4 tasks=64",
        "ring-mlp tasks=1056",
        "glyph-mlp tasks=1056",
    ]
    images = found["glyph-dcgan channels x4 tasks=64"]
    assert (images.generator_widths, images.discriminator_widths) == (
        (64, 256, 128, 64, 1),
        (1, 64, 128, 256, 1),
    )
    layers = [m for network in images.networks(seed=0) for m in network if hasattr(m, "kernel_size")]
    assert [m.in_channels for m in layers] == [64, 256, 128, 64, 1, 64, 128, 256]
    assert {case.gflop for case in found.values()} == {None}


def test_tasks_and_steps_are_chosen_on_either_device() -> None:
    (one,) = cases.select(["ring-mlp"], "cuda", tasks=7, steps=2)  # its two variants differ in tasks alone
    assert (one.name, one.tasks, one.inner_steps) == ("ring-mlp tasks=7 inner_steps=2", 7, 2)
    assert cases.select(["ring-mlp"], "cpu") == [cases.RING_MLP]
    assert cases.select(["ring-mlp"], "cpu", tasks=7)[0].name == "ring-mlp tasks=7"


def test_parts_of_a_problem_are_its_tasks() -> None:
    whole = TINY.problem(seed=1)
    part = whole.part(1, 9)
    assert part.case.tasks == 2
    assert torch.equal(part.real, whole.real[1:])
    assert whole.to("cpu") is whole
    wide = whole.to("cpu", torch.float64)
    assert {wide.phi.dtype, next(wide.generator.parameters()).dtype} == {torch.float64}
    assert whole.phi.dtype == torch.float32


# ---- the oracle ----


@pytest.mark.parametrize(
    ("case", "which", "sizes"),
    [*((TINY, which, (1, 2, 3)) for which in PASSES), (TINY_IMAGES, "meta", (1,))],
    ids=lambda value: getattr(value, "name", None),
)
def test_the_oracle_of_a_device_is_that_of_the_cpu(case: Case, which: Pass, sizes: tuple[int, ...]) -> None:
    """By torch.func, one part of the tasks after the other; the parts do not show."""
    problem = case.problem(seed=1)
    truth = ours.build(problem, "reference", which, dtype=torch.float64)[0]()
    for size in sizes:
        found = by_parts(problem, which, "cpu", torch.float64, size)
        assert (found - truth).norm() < 1e-13 * truth.norm()


def test_an_oracle_survives_the_way_to_another_process(tmp_path: Path) -> None:
    oracle = Oracle(TINY.problem(seed=1), "meta")
    oracle.save(tmp_path / "oracle.pt")
    back = Oracle.load(tmp_path / "oracle.pt")
    assert torch.equal(back.truth, oracle.truth)
    assert back.own == oracle.own
    assert back.check(oracle.truth.float()) == oracle.check(oracle.truth.float())


# ---- figures ----


def test_ceilings_are_measured_with_any_size() -> None:
    found = accelerator.ceilings("cpu", product=64, copied=4096, repeats=2)
    assert all(math.isfinite(value) and value > 0 for value in found)
    assert not torch.backends.cuda.matmul.allow_tf32


def test_kernels_are_counted_in_a_trace(tmp_path: Path) -> None:
    events = [{"cat": "kernel"}, {"cat": "gpu_memcpy"}, {"cat": "cpu_op"}, {"name": "no category"}] * 3
    (tmp_path / "trace.json").write_text(json.dumps({"traceEvents": events}))
    assert accelerator.kernels(tmp_path / "trace.json") == 3


def test_a_trace_of_a_call_on_the_cpu_has_its_operations(tmp_path: Path) -> None:
    a = torch.ones(8, 8)
    accelerator.trace(lambda: a @ a, "cpu", tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert any(event.get("name") == "aten::mm" for event in events)
    assert accelerator.launches(lambda: a @ a, "cpu") is None  # no kernels of a device are in it


def test_occupancy_is_what_an_engine_says() -> None:
    class Says:
        def occupancy(self) -> dict[str, float]:
            return {"registers": 128, "occupancy": 0.25}

    assert accelerator.occupancy(object()) is None
    assert accelerator.occupancy(Says()) == {"registers": 128, "occupancy": 0.25}


def test_turns_end_at_their_limit() -> None:
    calls: list[int] = []
    quick = Step(run=lambda: calls.append(1), read=lambda result: result)
    assert len(device_child.turns(quick, rounds=2, limit=60)) == len(calls) - 2
    slow = Step(run=lambda: torch.randn(400, 400) @ torch.randn(400, 400), read=lambda result: result)
    assert len(device_child.turns(slow, rounds=2, limit=0.0)) == 1


# ---- processes ----


def test_every_contestant_has_a_process_of_its_own(tmp_path: Path) -> None:
    said: list[str] = []
    kept: list[int] = []
    (rows,) = alone.run(
        [TINY],
        settings(traces=tmp_path),
        engines=["cpu", "no"],
        peer_names=["autograd:shared", "torch_func:no"],
        budget=Budget(None),
        say=said.append,
        keep=lambda rows: kept.append(sum(each.median_ms is not None for each in rows)),
    )
    engine, unknown, peer, lost = rows
    assert [each.split(": ")[1] for each in said] == ["oracle (float64)", "cpu", "no", "autograd shared"]
    assert kept == [0, 1, 1, 2]
    for filled in (engine, peer):
        assert filled.median_ms is not None
        assert filled.oracle_error is not None
        assert filled.on_device is not None
        assert filled.on_device.tflops == pytest.approx(3e-9 / filled.median_ms * 1e3)
        ceilings = filled.on_device.ceilings
        assert ceilings is not None
        assert set(ceilings) == {"matmul_tflops", "matmul_tf32_tflops", "copy_gb_s"}
        share = filled.on_device.tflops / ceilings["matmul_tflops"]
        assert filled.on_device.share_matmul == filled.roofline == pytest.approx(share)
        assert filled.on_device.launches is None  # there is no device
    assert engine.ratio_to_best_peer == pytest.approx(peer.median_ms / engine.median_ms)  # type: ignore[operator]
    assert engine.bytes_min is not None
    assert engine.on_device is not None
    assert engine.on_device.ceilings is not None
    rate = engine.bytes_min / engine.median_ms / 1e6  # type: ignore[operator]
    assert engine.on_device.share_copy == pytest.approx(rate / engine.on_device.ceilings["copy_gb_s"])
    assert (peer.note, engine.note, engine.commit) == ("shared", "", "abc")
    assert "expected one of" in unknown.note
    assert "expected a setting of torch_func" in lost.note
    assert [path.name for path in tmp_path.iterdir()] == ["tiny-cpu-meta.trace.json"]

    fields = engine.as_dict()
    assert "on_device" not in fields
    assert {"launches", "tflops", "occupancy", "share_matmul", "share_copy", "ceilings", "driver"} <= set(
        fields
    )
    text = row.table(rows, row.DEVICE_COLUMNS)
    assert len({len(line) for line in text.splitlines()}) == 1
    assert "of TF32" in text


def test_who_is_not_reached_within_the_budget_has_a_note() -> None:
    (rows,) = alone.run(
        [TINY],
        settings(),
        engines=["cpu"],
        peer_names=["autograd"],
        budget=Budget(0.0),
        say=lambda _: None,
        keep=lambda _: None,
    )
    assert [each.median_ms for each in rows] == [None, None]
    assert all("budget spent (--budget)" in each.note for each in rows)


class Scripted:
    """A process that says what it is told, and TimeoutError for what it never says."""

    def __init__(self, *messages: dict[str, object]) -> None:
        self.messages = list(messages)
        self.waits: list[float | None] = []

    def message(self, limit: float | None) -> dict[str, object]:
        self.waits.append(limit)
        if not self.messages:
            raise TimeoutError
        return self.messages.pop(0)

    def go(self) -> None:
        pass


def test_ours_are_first_and_second_settings_last(tmp_path: Path) -> None:
    def group(case: Case) -> alone._Group:
        entrants = [
            alone._engine(case, settings(), "cpu"),
            *(alone._peer(case, settings(), name, named=True) for name in ("torch_func", "autograd")),
        ]
        return alone._Group(case, tmp_path / "oracle.pt", 1.0, entrants)

    groups = [group(TINY), group(TINY.altered(tasks=2))]
    order = [
        (
            turn.job.entry.case.tasks,
            turn.entrant.row.engine if turn.entrant else "oracle",
            turn.job.entry.setting,
        )
        for turn in alone._turns(groups, settings())
    ]
    func = ("shared-autograd-outside", "shared-vjp-inside")
    assert order == [
        *((tasks, name, "") for tasks in (3, 2) for name in ("oracle", "cpu")),
        *((tasks, "torch_func", func[0]) for tasks in (3, 2)),
        *((tasks, "autograd", "shared") for tasks in (3, 2)),
        *((tasks, "torch_func", func[1]) for tasks in (3, 2)),
    ]


def test_ceilings_are_summed_up() -> None:
    timed = row.Row("x", "cpu", 1, 1)
    ceilings = accelerator.Ceilings(50.0, 400.0, 3000.0)
    timed.on_device = row.OnDevice("", "", "", 1.0, ceilings._asdict())
    assert "50.0 TFLOP/s in float32, 400 in TF32; copy 3000 GB/s" in alone.ceilings_line([timed])
    assert alone.ceilings_line([row.Row("x", "cpu", 1, 1)]) == "no ceilings: they were not measured"


@pytest.mark.parametrize("name", ["ring-mlp", "glyph-mlp"])
def test_tasks_of_a_gpu_do_not_come_close_to_a_kink(name: str) -> None:
    """Of 132 tasks; those of the 1,056 are left out by the same program."""
    few, many = cases.select([name], "cuda")
    assert few.left_out
    assert many.left_out
    problem = few.problem()
    assert len(problem.real) == few.tasks == 132
    assert kinks.margin(problem.part(0, 12)) > kinks.CLOSEST[name]
    assert few.altered(inner_steps=2).left_out == ()  # other numbers would be drawn


def test_limits_of_a_first_call_and_of_the_budget_are_told_apart() -> None:
    slow = Scripted({"ready": True})
    with pytest.raises(ProbeFailed, match=r"not done after 60 s \(--first-limit\)"):
        alone._attend(slow, 60.0, Budget(None))  # type: ignore[arg-type]
    assert slow.waits == [None, 60.0]
    late = Scripted({"ready": True})
    with pytest.raises(ProbeFailed, match="stopped: budget spent"):
        alone._attend(late, 60.0, Budget(30))  # type: ignore[arg-type]
    assert late.waits[1] == pytest.approx(30, abs=5)
    done = Scripted({"ready": True}, {"first_call_s": 1.0}, {"seconds": [1.0]}, {"notes": []})
    assert alone._attend(done, 60.0, Budget(30))["notes"] == []  # type: ignore[arg-type]
    timed = Scripted({"ready": True}, {"first_call_s": 1.0}, {"seconds": [1.0]})  # its times are not lost
    found = alone._attend(timed, 60.0, Budget(30))  # type: ignore[arg-type]
    assert (found["seconds"], found["notes"]) == (
        [1.0],
        ["no further figures: stopped: budget spent (--budget)"],
    )
    wrong = Scripted({"ready": True}, {"error": "it broke"})
    with pytest.raises(ProbeFailed, match="it broke"):
        alone._attend(wrong, 60.0, Budget(None))  # type: ignore[arg-type]


def test_a_case_of_many_tasks_leaves_out_who_takes_one_after_the_other() -> None:
    many = TINY.altered(tasks=200)
    left_out = alone._peer(many, settings(), "autograd", named=False)
    assert (left_out.entries, left_out.notes) == (
        [],
        ["not run: one task after the other, 200 of them (--peer autograd)"],
    )
    assert alone._peer(many, settings(), "autograd", named=True).entries
    assert alone._peer(TINY, settings(), "autograd", named=False).entries


@pytest.mark.parametrize("which", PASSES)
@pytest.mark.parametrize("name", list(peers.ON_CUDA))
def test_usual_peers_have_usual_settings(name: str, which: Pass) -> None:
    peer = peers.load(name) if name != "jax" else pytest.importorskip("bench.peers.jax_vmap")
    known = peer.variants(TINY.problem(), which)
    assert any(setting.startswith(peers.ON_CUDA[name]) for setting in known)


def test_a_job_survives_the_way_to_another_process() -> None:
    entry = Entry(TINY, "first", 2, "cuda", engine="triton", storage="nested")
    job = device_child.Job(entry, "oracle.pt", 3, 1.5, trace="here")
    assert device_child.Job.from_json(job.as_json()) == job


def test_reasons_are_short() -> None:
    assert one_line(ValueError("first\nsecond")) == "ValueError: first"
    assert len(one_line(MemoryError("CUDA out of memory. " * 30))) < 170


def test_a_child_that_dies_says_why() -> None:
    with Child("bench.device_child", "no job") as child:
        assert child.message(60) is None
        assert "its process ended with 1: " in child.reason()


@pytest.mark.gpu
def test_a_run_on_a_device_has_all_figures() -> None:
    (rows,) = alone.run(
        [TINY],
        settings(device="cuda"),
        engines=["torch"],
        peer_names=["torch_func:shared-vjp-inside"],
        budget=Budget(None),
        say=print,
        keep=lambda _: None,
    )
    for filled in rows:
        figures = filled.on_device
        assert figures is not None, filled.note
        assert figures.launches is not None
        assert figures.launches > 10
        assert figures.device_mb is not None
        assert figures.device_mb > 0
        assert figures.ceilings is not None
        assert filled.device == torch.cuda.get_device_name()
        assert figures.cuda == torch.version.cuda


# ---- counters ----


def test_a_call_for_ncu_is_that_of_the_entry() -> None:
    case = cases.select(["glyph-dcgan"], "cuda")[0]
    arguments = counters.once(Entry(case, "first", 2, "cuda", engine="triton", storage="phi"))
    assert arguments[1:4] == ["-m", "bench", "once"]
    given = dict(zip(arguments[4::2], arguments[5::2], strict=True))
    assert given == {
        "--case": "glyph-dcgan",
        "--engine": "triton",
        "--device": "cuda",
        "--pass": "first",
        "--storage": "phi",
        "--tasks": "64",
        "--steps": "5",
    }


NCU = """#!{python}
import sys
from pathlib import Path
if "--query-metrics" in sys.argv:
    print("dram__bytes  Counter  byte  # of bytes")
    sys.exit()
assert sys.argv[sys.argv.index("--metrics") + 1] == "dram__bytes.sum"
{then}
"""
COUNTS = 'Path(sys.argv[sys.argv.index("--log-file") + 1]).write_text(\'"ID","Kernel Name"\\n"0","f"\\n\')'
REFUSES = 'print("==ERROR== ERR_NVGPUCTRPERM"); sys.exit(1)'


@pytest.mark.parametrize(
    ("then", "limit", "says", "left"),
    [
        (COUNTS, 60, "counters: x.ncu.csv (not on this chip: sm__throughput", ["x.ncu.csv"]),
        (REFUSES, 60, "no counters: ncu: ==ERROR== ERR_NVGPUCTRPERM (x.ncu.txt)", ["x.ncu.txt"]),
        ("pass", 60, "no counters: ncu: exit code 0 (x.ncu.txt)", ["x.ncu.txt"]),
        ("import time; time.sleep(60)", 1, "no counters: ncu: not done after 1 s", ["x.ncu.txt"]),
    ],
)
def test_what_ncu_refuses_is_quoted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, then: str, limit: float, says: str, left: list[str]
) -> None:
    ncu, out = tmp_path / "ncu", tmp_path / "out"
    ncu.write_text(NCU.format(python=sys.executable, then=then))
    ncu.chmod(0o755)
    out.mkdir()
    monkeypatch.setattr(counters.shutil, "which", lambda name: str(ncu))
    entry = Entry(cases.RING_MLP, "meta", 1, "cuda", engine="triton")
    assert counters.read(entry, out, "x", limit).startswith(says)
    assert [path.name for path in out.iterdir()] == left


def test_counters_that_are_there_are_left(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(counters, "read", lambda entry, folder, name, limit: f"read within {limit:.0f} s")
    entries = [Entry(cases.RING_MLP, "meta", 1, "cuda", engine=name) for name in ("cuda", "triton")]
    (tmp_path / "ring-mlp-cuda-meta.ncu.csv").touch()
    counters.read_all(entries, tmp_path, Budget(None))
    counters.read_all(entries[1:], tmp_path, Budget(0))
    assert capsys.readouterr().out.splitlines() == [
        "ring-mlp: cuda: counters: they are there",
        "ring-mlp: triton: read within 60 s",
        "ring-mlp: triton: no counters: budget spent (--budget)",
    ]


def test_without_ncu_there_are_no_counters(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(counters.shutil, "which", lambda name: None)
    entry = Entry(cases.RING_MLP, "meta", 1, "cuda", engine="triton")
    assert counters.read(entry, tmp_path, "x", limit=2) == "no counters: ncu is not on the PATH"


# ---- the command ----


def test_what_the_command_prints_on_a_device(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The path of --device cuda, with the CPU for a device."""
    small = functools.partial(alone.Settings, product=64, copied=4096)
    monkeypatch.setattr(alone, "Settings", small)
    monkeypatch.setattr(counters.shutil, "which", lambda name: None)
    args = argparse.Namespace(
        **dict.fromkeys(("limit", "first_limit", "budget")),
        **{"device": "cpu", "which": "first", "threads": 1, "storage": "auto", "rounds": 1},
        **{"engine": ["torch"], "peer": ["none"], "commit": "abc", "profile": tmp_path},
    )
    kept: list[int] = []
    rows = command_line._on_cuda(args, [TINY], "x", lambda rows: kept.append(len(rows)))
    assert [each.engine for each in rows] == ["torch"]
    assert kept == [1, 1, 1]  # after the oracle, after the engine, at the end
    out = capsys.readouterr().out
    assert "| of TF32 |" in out
    assert "ceilings, the median of 1: " in out
    assert out.splitlines()[-1] == "tiny: torch: no counters: ncu is not on the PATH"
    assert [path.name for path in tmp_path.iterdir()] == ["tiny-torch-first.trace.json"]


@no_cuda
def test_without_a_device_the_command_says_so() -> None:
    for arguments in (["--device", "cuda"], ["counters", "here"]):
        done = command(*arguments)
        assert done.returncode == 2
        assert "--device: expected cpu, got cuda, and torch" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_profile_on_the_cpu_is_a_trace(tmp_path: Path) -> None:
    done = command(
        *("--case", "ring-mlp", "--tasks", "2", "--steps", "1", "--peer", "none", "--rounds", "1"),
        *("--profile", str(tmp_path / "here"), "--json", str(tmp_path / "rows.json"), "--commit", "abc"),
    )
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "here").iterdir()
    assert path.name == "ring-mlp-tasks-2-inner-steps-1-cpu-meta.trace.json"
    assert json.loads(path.read_text())["traceEvents"]
    (fields,) = json.loads((tmp_path / "rows.json").read_text())
    assert (fields["commit"], fields["tasks"]) == ("abc", 2)


def test_once_is_one_call() -> None:
    done = command("once", "--case", "ring-mlp", "--engine", "torch", "--tasks", "2", "--steps", "1")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "ring-mlp tasks=2 inner_steps=1, torch, pass meta: finite\n"
