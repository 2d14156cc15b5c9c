"""``engine="auto"``: measured once, remembered, and never in silence."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import pymgan
from pymgan import selection
from pymgan.contract import Engine
from pymgan.engine import compile as compile_engine


@pytest.fixture(autouse=True)
def _own_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYMGAN_CACHE", str(tmp_path / "cache"))


def gan() -> pymgan.GAN:
    return pymgan.GAN(
        nn.Sequential(nn.Linear(3, 2)),
        nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1)),
        latent=(3,),
    )


class Candidates:
    """Engines that take a given time, by name, and which of them were made."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **seconds: float) -> None:
        self.made: list[str] = []
        self.seconds = seconds
        self.engines: dict[int, str] = {}
        monkeypatch.setattr(selection, "_meta_step_seconds", lambda engine: seconds[self.engines[id(engine)]])

    def makers(self) -> dict[str, Callable[[], Engine]]:
        def maker(name: str) -> Callable[[], Engine]:
            def make() -> Engine:
                self.made.append(name)
                engine = compile_engine(gan(), engine="reference")
                self.engines[id(engine)] = name
                return engine

            return make

        return {name: maker(name) for name in self.seconds}


def test_the_fastest_is_measured_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    candidates = Candidates(monkeypatch, slow=0.2, fast=0.1)
    with caplog.at_level(logging.INFO, "pymgan"):
        selection.fastest(candidates.makers(), "program")
    assert candidates.made == ["slow", "fast"]
    assert "engine fast is the fastest: slow 200.00 ms, fast 100.00 ms" in caplog.text
    candidates.made.clear()
    selection.fastest(candidates.makers(), "program")
    assert candidates.made == ["fast"]
    candidates.made.clear()
    selection.fastest(candidates.makers(), "another program")
    assert candidates.made == ["slow", "fast"]


def test_one_that_cannot_is_out(monkeypatch: pytest.MonkeyPatch) -> None:
    candidates = Candidates(monkeypatch, able=0.2)

    def unable() -> Engine:
        raise NotImplementedError("[compile] expected something else")

    selection.fastest({"unable": unable, **candidates.makers()}, "program")
    assert candidates.made == ["able"]
    with pytest.raises(NotImplementedError, match="something else"):
        selection.fastest({"unable": unable, "neither": unable}, "program")


def test_a_memory_that_is_broken_is_written_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    candidates = Candidates(monkeypatch, slow=0.2, fast=0.1)
    file = selection.memory_file()
    for text in ("{", "[1]", '{"key": 3}'):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        selection.fastest(candidates.makers(), "program")
        assert list(json.loads(file.read_text()).values())[-1] == "fast"


def test_a_meta_step_is_timed() -> None:
    assert 0 < selection._meta_step_seconds(compile_engine(gan(), engine="cpu")) < 10


def test_where_one_engine_can_nothing_is_measured() -> None:
    assert compile_engine(gan(), engine="auto", device="cpu").name == "cpu"
    assert not selection.memory_file().exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a device")
def test_a_device_that_is_not_there() -> None:
    for device in ("cuda", "cuda:1", "tpu"):
        with pytest.raises(
            ValueError, match=f"device: expected 'cpu' or 'cuda' for the auto engine.*{device}"
        ):
            compile_engine(gan(), engine="auto", device=device)


def test_precision_is_checked() -> None:
    with pytest.raises(ValueError, match="precision: expected one of float32, tf32, bf16, got 'fp8'"):
        compile_engine(gan(), precision="fp8")
    for engine in ("cpu", "torch", "reference"):
        with pytest.raises(
            ValueError, match=f"precision: expected 'float32' for the {engine} engine, got 'tf32'"
        ):
            compile_engine(gan(), engine=engine, precision="tf32")
    with pytest.raises(ValueError, match=r"precision: expected 'float32' with torch\.float64"):
        compile_engine(gan(), dtype=torch.float64, precision="tf32")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="expected 'cuda' for the auto engine"):
            compile_engine(gan(), precision="tf32")
