"""A run from start to end, and every way in which it can stop and go on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from face import TINY, tiny_gan, tiny_run

import pymgan
from pymgan import loop
from pymgan.tasks import get

METHODS = ("maml", "joint", "reptile")


@pytest.fixture
def save_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "SAVE_EVERY_S", -1.0)


def checkpoint_of(folder: Path) -> bytes:
    return (folder / "checkpoint.safetensors").read_bytes()


def test_a_whole_run(tmp_path: Path) -> None:
    seen: list[pymgan.Step] = []
    run = tiny_run(tmp_path, rivals=("joint", "reptile", "scratch"), callbacks=[seen.append])
    names = {entry.name for entry in tmp_path.iterdir()}
    assert names >= {
        "config.json",
        "checkpoint.safetensors",
        "metrics.jsonl",
        "events",
        "samples.png",
        "summary.json",
    }
    assert list((tmp_path / "events" / "joint").glob("events.out.tfevents.*"))

    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary == run.summary
    assert summary["test"].pop("tasks") == 4
    assert set(summary["test"]) == {"before", "after", "scratch", "joint", "reptile"}
    for scores in summary["test"].values():
        assert set(scores) == {"energy", "swd", "mmd2", "nearest_support"}
        for value in scores.values():
            assert set(value) == {"mean", "ci95"}
    assert summary["engine"] == "cpu"
    assert summary["seed"] == 0
    assert summary["version"] == pymgan.__version__
    assert summary["wall_s"] > 0
    assert summary["settings"]["steps"].keys() == set(METHODS)

    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows == run.history
    for method in METHODS:
        own = [row for row in rows if row["method"] == method]
        assert own[-1]["step"] == summary["settings"]["steps"][method]
        assert own[-1]["validation_energy"] is not None
        assert own[-1]["validation_energy_raw"] is not None
    assert [step.step for step in seen if step.method == "maml"] == [1, 2, 3, 4]
    assert b'"wall' not in checkpoint_of(tmp_path)

    loaded = pymgan.load(tmp_path)
    assert torch.equal(loaded.parameters, run.parameters)
    assert torch.equal(loaded.raw, run.raw)
    assert not torch.equal(loaded.raw, loaded.parameters)
    assert loaded.summary == run.summary
    assert loaded.history == run.history
    images = torch.randn(6, 2)
    assert torch.equal(loaded.adapt(images).sample(3, seed=0), run.adapt(images).sample(3, seed=0))


def test_without_a_folder() -> None:
    run = tiny_run(steps=2)
    assert run.path is None
    assert run.summary is not None


def test_the_same_call_gives_the_same_bits(tmp_path: Path) -> None:
    for name in "ab":
        tiny_run(tmp_path / name, steps=2)
    assert checkpoint_of(tmp_path / "a") == checkpoint_of(tmp_path / "b")
    tiny_run(tmp_path / "c", steps=2, seed=1)
    assert checkpoint_of(tmp_path / "a") != checkpoint_of(tmp_path / "c")


CHILD = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = {path!r}
from face import tiny_run
from pymgan import loop
loop.SAVE_EVERY_S = -1.0
kill = {kill!r}
def end(step):
    if (step.method, step.step) == kill:
        os.kill(os.getpid(), {signal})
tiny_run(Path(sys.argv[1]), rivals=("joint",), steps=5, callbacks=[end])
"""


def child(
    folder: Path, kill: tuple[str, int] | None, number: int = signal.SIGKILL
) -> subprocess.CompletedProcess[str]:
    code = textwrap.dedent(CHILD).format(path=sys.path, kill=kill, signal=int(number))
    return subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=False
    )


def test_killed_and_resumed_ends_in_the_same_bytes(tmp_path: Path) -> None:
    assert child(tmp_path / "whole", None).returncode == 0
    for kill in (("maml", 1), ("maml", 3), ("joint", 17)):
        assert child(tmp_path / "killed", kill).returncode == -signal.SIGKILL
    result = child(tmp_path / "killed", None)
    assert result.returncode == 0, result.stderr
    assert checkpoint_of(tmp_path / "killed") == checkpoint_of(tmp_path / "whole")

    def rows(name: str) -> list[dict[str, Any]]:
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        return [{k: v for k, v in json.loads(line).items() if k != "wall_s"} for line in lines]

    assert rows("killed") == rows("whole")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_saves_the_step_it_was_in(tmp_path: Path, number: int) -> None:
    def stop(step: pymgan.Step) -> None:
        if step.step == 2:
            os.kill(os.getpid(), number)

    with pytest.raises(pymgan.Interrupted, match=r"stopped and saved: maml is at step 2 of 4.*resumes"):
        tiny_run(tmp_path / "a", callbacks=[stop])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    steps: list[int] = []
    tiny_run(tmp_path / "a", callbacks=[lambda step: steps.append(step.step)])
    assert steps == [3, 4]
    tiny_run(tmp_path / "b")
    assert checkpoint_of(tmp_path / "a") == checkpoint_of(tmp_path / "b")
    with pytest.raises(pymgan.Interrupted, match="nothing was saved"):
        tiny_run(None, callbacks=[stop])


def test_a_finished_run_is_not_run_again(tmp_path: Path) -> None:
    first = tiny_run(tmp_path)
    times = {
        entry: entry.stat().st_mtime_ns
        for entry in tmp_path.rglob("*")
        if entry.is_file() and entry.name != ".lock"
    }
    again = tiny_run(tmp_path)
    assert again.summary == first.summary
    assert torch.equal(again.parameters, first.parameters)
    assert {entry: entry.stat().st_mtime_ns for entry in times} == times


def test_stopped_after_training_goes_on_with_the_evaluation(tmp_path: Path) -> None:
    first = tiny_run(tmp_path)
    (tmp_path / "summary.json").unlink()
    again = tiny_run(tmp_path)
    assert again.summary is not None
    assert first.summary is not None
    assert again.summary["test"] == first.summary["test"]


def test_changed_settings_are_named(tmp_path: Path) -> None:
    tiny_run(tmp_path)
    with pytest.raises(pymgan.SettingsChanged) as caught:
        tiny_run(tmp_path, steps=5, meta=pymgan.MAML(inner_steps=2, samples=4, inner_lr=0.2))
    text = str(caught.value)
    assert "steps.maml: 4 in the folder, 5 now" in text
    assert "methods.maml.inner_lr: 0.1 in the folder, 0.2 now" in text
    assert "seed" not in text
    gan = pymgan.GAN(tiny_gan().generator, tiny_gan().discriminator, latent=(3,), loss="hinge")
    with pytest.raises(
        pymgan.SettingsChanged, match=r"gan\.loss: 'nonsaturating' in the folder, 'hinge' now"
    ):
        pymgan.train(get("rings"), gan, out=tmp_path, **TINY)
    with pytest.raises(FileExistsError, match="holds a run"):
        tiny_run(tmp_path, resume=False)


def test_a_run_in_which_most_tasks_fail_stops(tmp_path: Path, save_always: None) -> None:
    meta = pymgan.MAML(inner_steps=2, samples=4, inner_lr=1e200)
    with pytest.raises(pymgan.TrainingFailed, match=r"most tasks.*last good state.*Lower inner_lr"):
        tiny_run(tmp_path, meta=meta, steps=50)
    loaded = pymgan.load(tmp_path)
    assert bool(torch.isfinite(loaded.parameters).all())
    assert torch.equal(loaded.parameters, tiny_gan().parameters_vector())


def test_two_runs_in_one_folder(tmp_path: Path) -> None:
    def second(_: pymgan.Step) -> None:
        tiny_run(tmp_path)

    with pytest.raises(pymgan.FolderInUse, match="another process"):
        tiny_run(tmp_path, callbacks=[second])


def test_adapting(tmp_path: Path) -> None:
    run = tiny_run(steps=2)
    few = run.adapt(torch.randn(5, 2).numpy(), steps=1, seed=2)
    assert few.sample(7).shape == (7, 2)
    assert torch.equal(few.sample(4, seed=1), few.sample(4, seed=1))
    assert len(few.losses["generator"]) == 1
    few.save(tmp_path / "few.safetensors")
    loaded = pymgan.FewShot.load(tmp_path / "few.safetensors")
    assert torch.equal(loaded.sample(4, seed=1), few.sample(4, seed=1))
    assert torch.equal(loaded.gan.parameters_vector(), few.gan.parameters_vector())
    assert not torch.equal(few.gan.parameters_vector(), run.parameters)  # and the run itself has not moved
    assert torch.equal(run.before().gan.parameters_vector(), run.parameters)
    assert run.adapt(torch.randn(200, 2)).sample(1).shape == (1, 2)  # more than a batch
    with pytest.warns(UserWarning, match="meta-trained for 2"):
        run.adapt(torch.randn(5, 2), steps=3)


def test_other_methods_as_the_runs_own() -> None:
    for meta in (pymgan.Joint(inner_steps=2), pymgan.Reptile(inner_steps=2), pymgan.Scratch(inner_steps=2)):
        run = tiny_run(meta=meta, steps=2)
        assert run.summary is not None
        assert "after" in run.summary["test"]
