"""Files are whole or absent, say when they are not, and equal content gives equal bytes."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pymgan import checkpoint
from pymgan.errors import CheckpointError, FolderInUse
from pymgan.folder import RunFolder

TENSORS = {
    "b": torch.arange(6.0).reshape(2, 3),
    "a": torch.tensor([1, 2]),
    "scalar": torch.tensor(3.0),
    "empty": torch.empty(0),
}
STATE = {"step": 7, "nested": {"x": [1, 2.5, None]}}


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    checkpoint.save(path, TENSORS, STATE, kind="run")
    tensors, state = checkpoint.load(path, kind="run")
    assert state == STATE
    assert tensors.keys() == TENSORS.keys()
    for name, value in TENSORS.items():
        assert torch.equal(tensors[name], value)
        assert tensors[name].dtype == value.dtype
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.safetensors"]


def test_equal_content_gives_equal_bytes() -> None:
    turned = dict(reversed(TENSORS.items()))
    state = dict(reversed(STATE.items()))
    assert checkpoint.encode(TENSORS, STATE, kind="run") == checkpoint.encode(turned, state, kind="run")


def test_other_processes_write_the_same_bytes(tmp_path: Path) -> None:
    code = (
        "import sys, torch; from pymgan import checkpoint;"
        "sys.stdout.buffer.write(checkpoint.encode({'b': torch.ones(3), 'a': torch.zeros(2)}, "
        "{'y': 1, 'x': 2}, kind='run'))"
    )
    outputs = {
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout for _ in range(2)
    }
    assert len(outputs) == 1


@pytest.mark.parametrize("size", [0, 4, 8, 40, 200])
def test_truncated(tmp_path: Path, size: int) -> None:
    data = checkpoint.encode(TENSORS, STATE, kind="run")
    path = tmp_path / "x.safetensors"
    path.write_bytes(data[:size])
    with pytest.raises(CheckpointError, match=r"x\.safetensors"):
        checkpoint.load(path, kind="run")


def test_truncated_by_one_byte_and_flipped_bits() -> None:
    data = checkpoint.encode(TENSORS, STATE, kind="run")
    with pytest.raises(CheckpointError):
        checkpoint.decode(data[:-1], kind="run")
    for position in range(len(data) - 30, len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 1
        with pytest.raises(CheckpointError, match="checksum"):
            checkpoint.decode(bytes(damaged), kind="run")


def test_damaged_state_is_found() -> None:
    data = checkpoint.encode(TENSORS, STATE, kind="run")
    damaged = data.replace(b'\\"step\\":7', b'\\"step\\":8')
    assert damaged != data
    with pytest.raises(CheckpointError, match="checksum"):
        checkpoint.decode(damaged, kind="run")


def test_foreign(tmp_path: Path) -> None:
    from safetensors.torch import save

    for data in (
        b"PK\x03\x04 this is a zip file or so",
        save({"a": torch.ones(2)}),
        save({"a": torch.ones(2)}, {"pymgan": "[]"}),
    ):
        with pytest.raises(CheckpointError, match="not a pymgan checkpoint"):
            checkpoint.decode(data, kind="run")
    with pytest.raises(CheckpointError, match="'generator'"):
        checkpoint.decode(checkpoint.encode(TENSORS, STATE, kind="generator"), kind="run")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    checkpoint.atomic_write(path, b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"cannot write .*x: No space left on device"):
        checkpoint.atomic_write(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["x"]


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    code = (
        "import sys; from pymgan.folder import RunFolder\n"
        "try: RunFolder(sys.argv[1])\n"
        "except Exception as error: print(type(error).__name__)\n"
        "else: print('got it')"
    )

    def other() -> str:
        return subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)], check=True, capture_output=True, text=True
        ).stdout.strip()

    with RunFolder(tmp_path):
        assert other() == "FolderInUse"
        with pytest.raises(FolderInUse):
            RunFolder(tmp_path)
    assert other() == "got it"


def test_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(NotADirectoryError, match="choose another"):
        RunFolder(tmp_path / "file")
    with pytest.raises(OSError, match="cannot write"):
        RunFolder(tmp_path / "file" / "below")


def test_stale_temporary_files_go(tmp_path: Path) -> None:
    (tmp_path / ".checkpoint.safetensors.123.tmp").write_bytes(b"half")
    RunFolder(tmp_path).close()
    assert not list(tmp_path.glob(".*.tmp"))


def test_metrics_are_cut_to_the_checkpoint(tmp_path: Path) -> None:
    with RunFolder(tmp_path) as folder:
        for step in (1, 2, 3):
            folder.append({"method": "maml", "step": step})
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(path.read_bytes() + b'{"method": "ma')
    with RunFolder(tmp_path) as folder:
        assert [row["step"] for row in folder.cut(lambda row: row["step"] <= 2)] == [1, 2]
        folder.append({"method": "maml", "step": 3, "again": True})
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert rows[-1]["again"]
