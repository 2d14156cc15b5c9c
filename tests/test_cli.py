"""The command line: what it prints, what it writes, and its exit codes. Never a traceback."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import pymgan
from pymgan import cli, loop

TINY = [
    *(
        "train",
        "--tasks",
        "digits",
        "--arch",
        "mlp:4",
        "--steps",
        "2",
        "--tasks-per-step",
        "2",
        "--shots",
        "4",
    ),
    *(
        "--queries",
        "4",
        "--test-tasks",
        "2",
        "--rivals",
        "none",
        "--engine",
        "reference",
        "--inner-steps",
        "1",
    ),
    "--no-progress",
]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "run"
    patch = pytest.MonkeyPatch()
    patch.setattr(loop, "VALIDATION_TASKS", 2)
    assert cli.main([*TINY, "--out", str(folder)]) == 0
    patch.undo()
    return folder


def images(folder: Path, count: int = 3, size: tuple[int, int] = (8, 8)) -> Path:
    folder.mkdir()
    for index in range(count):
        pixels = np.random.default_rng(index).integers(0, 255, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return folder


def failing(arguments: list[str], capsys: pytest.CaptureFixture[str], code: int = 2) -> str:
    """Run a command that must fail with one message; returns it."""
    capsys.readouterr()
    assert cli.main(arguments) == code
    text = capsys.readouterr().err
    assert "Traceback" not in text
    assert text.strip()
    return text


def test_train_prints_a_table_and_its_files(
    run_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "VALIDATION_TASKS", 2)
    capsys.readouterr()
    assert cli.main([*TINY, "--out", str(run_folder)]) == 0  # finished: prints its summary again
    text = capsys.readouterr().out
    assert "nearest_support" in text
    assert "after" in text
    assert str(run_folder / "summary.json") in text


def test_changed_settings(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = failing([*TINY, "--out", str(run_folder), "--seed", "5"], capsys)
    assert "seed: 0 in the folder, 5 now" in text
    assert "holds a run" in failing([*TINY, "--out", str(run_folder), "--no-resume"], capsys)


def test_adapt_and_sample(run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = images(tmp_path / "mine", size=(20, 9))
    out = tmp_path / "adapted"
    assert cli.main(["adapt", "--run", str(run_folder), "--images", str(folder), "--out", str(out)]) == 0
    captured = capsys.readouterr()
    assert "resized 3 of 3 images to 8x8" in captured.err
    assert {entry.name for entry in out.iterdir()} == {"adapted.safetensors", "samples.png", "comparison.png"}
    weights = str(out / "adapted.safetensors")
    for name in ("a.png", "a.npy"):
        assert cli.main(["sample", "--weights", weights, "--n", "5", "--out", str(tmp_path / name)]) == 0
    array = np.load(tmp_path / "a.npy")
    assert array.shape == (5, 1, 8, 8)
    expected = pymgan.FewShot.load(weights).sample(5, seed=0)
    assert torch.equal(torch.from_numpy(array), expected)
    assert cli.main(["sample", "--run", str(run_folder), "--out", str(tmp_path / "b.png")]) == 0
    with Image.open(tmp_path / "b.png") as picture:
        assert picture.size[0] > 100


def test_default_place_of_adapted_weights(run_folder: Path, tmp_path: Path) -> None:
    folder = images(tmp_path / "mine")
    assert cli.main(["adapt", "--run", str(run_folder), "--images", str(folder)]) == 0
    assert (run_folder / "adapted" / "mine" / "adapted.safetensors").exists()


def test_env(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["env"]) == 0
    text = capsys.readouterr().out
    for word in ("pymgan", "torch", "chosen", "cpu", "reference", "available", "cuda", "not available"):
        assert word in text


def test_defaults_are_those_of_python() -> None:
    from pymgan.train import DEFAULTS

    options = cli._parser().parse_args(["train"])
    for name in (
        "steps",
        "tasks_per_step",
        "shots",
        "queries",
        "seed",
        "test_tasks",
        "engine",
        "device",
        "threads",
    ):
        assert getattr(options, name) == DEFAULTS[name], name
    assert options.resume == DEFAULTS["resume"]
    assert options.rivals == ",".join(DEFAULTS["rivals"])
    assert cli._meta(options) == DEFAULTS["meta"]


def test_a_folder_does_not_hide_tasks_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as that of a run."""
    (tmp_path / "rings").mkdir()
    monkeypatch.chdir(tmp_path)
    named = argparse.Namespace(tasks="rings", size=None, channels=None)
    assert cli._distribution(named).name == "rings"
    named.tasks = "./rings"
    with pytest.raises(ValueError, match="got no folders"):
        cli._distribution(named)


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ([], (1, 16, 16)),
        (["--size", "8"], (1, 8, 8)),
        (["--channels", "3"], (3, 16, 16)),
        (["--channels", "1", "--size", "9"], (1, 9, 9)),
    ],
)
@pytest.mark.filterwarnings("ignore:resized")
def test_size_and_channels_of_a_folder(options: list[str], shape: tuple[int, ...], tmp_path: Path) -> None:
    for name in "abc":
        images(tmp_path / name)
    parsed = cli._parser().parse_args(["train", "--tasks", str(tmp_path), *options])
    assert cli._distribution(parsed).sample_shape == shape


@pytest.mark.parametrize("arguments", [[], ["trian"], ["train", "--steps", "many"], ["adapt"]])
def test_usage_errors(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert "usage" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--tasks", "glyps"], "glyps"),
        (["--size", "8"], "with a folder of images, got --size with the built-in tasks digits"),
        (["--channels", "1"], "got --channels with the built-in tasks digits"),
        (["--tasks", "glyps", "--size", "8"], "glyps"),
        (["--arch", "lenet"], "expected arch 'mlp'"),
        (["--penalty", "r9"], "expected one of r1"),
        (["--augment", "rotation"], "expected some of brightness, translation, cutout"),
        (["--instance-noise", "-1"], "expected a finite number from 0"),
        (["--penalty", "r1:heavy"], "expected --penalty KIND"),
        (["--penalty", "r1:1:2:3"], "expected --penalty KIND"),
        (["--penalty", "r1:-1"], "expected a finite number from 0"),
        (["--arch", "mlp:0"], "positive widths"),
        (["--arch", "dcgan:8,8"], "one number of channels"),
        (["--meta", "proto"], "expected a method"),
        (["--rivals", "joint,nobody"], "expected a method"),
        (["--meta", "joint", "--order", "1"], "order"),
        (["--steps", "0"], "steps >= 1, got 0"),
        (["--steps", "-3"], "steps >= 1, got -3"),
        (["--inner-steps", "0"], "inner_steps >= 1"),
        (["--inner-lr", "-0.1"], "inner_lr >= 0"),
        (["--inner-lr", "1", "2", "3"], "one number or two"),
        (["--outer-lr", "nan"], "outer_lr >= 0"),
        (["--shots", "1"], "shots >= 2"),
        (["--queries", "0"], "queries >= 2"),
        (["--tasks-per-step", "0"], "tasks_per_step >= 1"),
        (["--seed", "-1"], "seed >= 0"),
        (["--threads", "0"], "threads"),
        (["--engine", "gpu"], "engine"),
        (["--device", "cuda"], "cuda"),
        (["--loss", "l2"], "loss"),
        (["--objective", "mmd"], "objective"),
    ],
)
def test_bad_arguments(
    changes: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = failing([*TINY, "--out", str(tmp_path / "run"), *changes], capsys)
    assert message in text
    assert not (tmp_path / "run").exists()  # nothing half-written


def test_bad_folders(run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    adapt = ["adapt", "--run", str(run_folder), "--out", str(tmp_path / "out"), "--images"]
    assert "got none" in failing([*adapt, str(empty)], capsys)
    assert "expected a folder" in failing([*adapt, str(tmp_path / "nowhere")], capsys)
    assert "at least 2" in failing([*adapt, str(images(tmp_path / "one", count=1))], capsys)
    (tmp_path / "classes").mkdir()
    for name in "ab":
        images(tmp_path / "classes" / name)
    assert "one folder of images a class" in failing([*adapt, str(tmp_path / "classes")], capsys)
    broken = images(tmp_path / "broken")
    (broken / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    text = failing([*adapt, str(broken)], capsys)
    assert "1.png" in text
    assert not (tmp_path / "out").exists()
    assert "steps >= 1" in failing([*adapt, str(images(tmp_path / "fine")), "--steps", "0"], capsys)
    assert "expected a run folder" in failing(["sample", "--run", str(empty)], capsys)
    assert "1.png" in failing(["sample", "--weights", str(broken / "1.png")], capsys)
    assert "no such" in failing(["sample", "--weights", str(empty / "x")], capsys).lower()
    assert ">= 1" in failing(["sample", "--run", str(run_folder), "--n", "0"], capsys)
    assert ".png or .npy" in failing(["sample", "--run", str(run_folder), "--out", "x.gif"], capsys)
    file = tmp_path / "file"
    file.write_text("x")
    assert "file" in failing([*TINY, "--out", str(file)], capsys)
    assert "cannot write" in failing([*TINY, "--out", str(file / "below")], capsys)


def test_damaged_checkpoint(run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("config.json", "checkpoint.safetensors"):
        (copy / name).write_bytes((run_folder / name).read_bytes())
    whole = (copy / "checkpoint.safetensors").read_bytes()
    for damaged in (whole[:-5], whole[:100], b"", b"PK\x03\x04 something else entirely"):
        (copy / "checkpoint.safetensors").write_bytes(damaged)
        assert "checkpoint" in failing(["sample", "--run", str(copy)], capsys)
        assert "checkpoint" in failing([*TINY, "--out", str(copy)], capsys)
        assert (copy / "checkpoint.safetensors").read_bytes() == damaged
    (copy / "config.json").write_text('{"format": 2}')
    assert "config.json" in failing(["sample", "--run", str(copy)], capsys)
    (copy / "config.json").write_text("[not json")
    assert "config.json" in failing([*TINY, "--out", str(copy)], capsys)


def test_full_disk(tmp_path: Path) -> None:
    """A limit on the size of files fails writes as a full disk does, in the middle of them."""
    code = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))\n"
        "from pymgan import cli; sys.exit(cli.main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, *TINY, "--out", str(tmp_path / "run")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert "cannot write" in result.stderr
    assert not (tmp_path / "run" / "checkpoint.safetensors").exists()
    assert not list((tmp_path / "run").glob(".*.tmp"))


def test_errors_nobody_foresaw(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from pymgan import env

    def broken() -> str:
        raise KeyError("x")

    monkeypatch.setattr(env, "report", broken)
    assert "--debug" in failing(["env"], capsys, code=1)
    assert cli.main(["--debug", "env"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_ctrl_c(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "pymgan", *TINY, "--out", str(folder), "--steps", "100000"]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ
    )
    deadline = time.monotonic() + 120
    while not (folder / "checkpoint.safetensors").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert "stopped and saved" in errors
    assert "resumes" in errors
    assert json.loads((folder / "config.json").read_text())["settings"]["steps"] == {"maml": 100000}
