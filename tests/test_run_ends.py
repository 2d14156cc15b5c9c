"""How a run ends: its summary and pictures for samples of any shape, in little memory, and when all of it failed."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from face import tiny_gan, tiny_run
from torch import nn

import pymgan
from pymgan import finish, loop, pictures
from pymgan.evaluate import Contender, chunks, nearest_queries, score
from pymgan.folder import jsonable
from pymgan.tasks import from_arrays, get


def train_on_samples(shape: tuple[int, ...], out: Path) -> pymgan.Run:
    size, random = math.prod(shape), np.random.default_rng(0)
    generator = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, size), nn.Unflatten(1, shape))
    critic = nn.Sequential(nn.Flatten(), nn.Linear(size, 4), nn.LeakyReLU(0.2), nn.Linear(4, 1))
    arrays = [random.uniform(-1, 1, (8, *shape)).astype("f4") for _ in range(8)]
    return pymgan.train(
        from_arrays(arrays),
        pymgan.GAN(generator, critic, latent=(2,)),
        steps=1,
        rivals=(),
        tasks_per_step=2,
        shots=2,
        queries=2,
        test_tasks=2,
        progress=False,
        threads=1,
        out=out,
    )


@pytest.mark.parametrize("shape", [(2, 2, 2, 3), (1, 2), (1, 1, 2)], ids=str)
def test_samples_of_any_shape_have_a_picture(shape: tuple[int, ...], tmp_path: Path) -> None:
    run = train_on_samples(shape, tmp_path)
    assert run.summary is not None
    assert (tmp_path / "summary.json").exists()
    assert (tmp_path / "samples.png").read_bytes().startswith(b"\x89PNG")


def test_slices_lie_below_each_other() -> None:
    samples = torch.linspace(-1, 1, 2 * 1 * 3 * 2 * 4).reshape(2, 1, 3, 2, 4)
    tile = pictures._mosaic(samples, 2, gap=1)
    assert tile.shape == (6, 9)
    assert np.array_equal(tile, pictures._mosaic(samples.reshape(2, 1, 6, 4), 2, gap=1))


def test_the_summary_is_there_before_the_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_picture(*_: Any, **__: Any) -> None:
        raise MemoryError("no picture")

    monkeypatch.setattr(finish, "draw_samples", no_picture)
    with pytest.raises(MemoryError):
        tiny_run(tmp_path, steps=1)
    assert tiny_run(tmp_path, steps=1).summary is not None  # finished: nothing is drawn again


@pytest.mark.parametrize("steps", [1, 3])
def test_a_short_run_in_which_all_tasks_fail_stops(steps: int, tmp_path: Path) -> None:
    meta = pymgan.MAML(inner_steps=2, samples=4, inner_lr=1e200)
    with pytest.raises(pymgan.TrainingFailed, match=r"most tasks.*last good state.*Lower inner_lr"):
        tiny_run(tmp_path, meta=meta, steps=steps)
    assert not (tmp_path / "summary.json").exists()


def test_a_summary_without_finite_numbers_is_json(tmp_path: Path) -> None:
    def refuse(word: str) -> None:
        raise AssertionError(word)

    rivals = (pymgan.Scratch(inner_steps=2, inner_lr=1e37),)
    run = tiny_run(tmp_path, meta=pymgan.Scratch(inner_steps=2, inner_lr=1e38), rivals=rivals)
    text = (tmp_path / "summary.json").read_text()
    assert json.loads(text, parse_constant=refuse) == run.summary
    assert run.summary is not None
    assert jsonable({"a": [math.nan, 1.0], "b": -math.inf}) == {"a": [None, 1.0], "b": None}
    scores = {"energy": {"mean": None, "ci95": None}}
    assert "not finite ± not finite" in finish.table({"test": {"tasks": 2, "after": scores}})


def test_chunks_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    gan, tasks = tiny_gan(), get("rings").split("test")
    batch = tasks.sample(11, 4, 4, np.random.default_rng(0))
    engine = pymgan.compile(gan, fakes=4, reals=4, engine="cpu", threads=1)
    contender = Contender("after", engine, gan.parameters_vector(), torch.full((2, 2), 0.1))
    whole, real = score(contender, batch, seed=0), nearest_queries(batch)
    sizes: list[int] = []
    adapt = engine.adapt

    def counted(phi: torch.Tensor, *args: Any, **options: Any) -> Any:
        sizes.append(len(phi))
        return adapt(phi, *args, **options)

    monkeypatch.setattr(engine, "adapt", counted)
    monkeypatch.setitem(chunks.__globals__, "CHUNK", 4)
    parts = score(contender, batch, seed=0)
    assert sizes == [3, 4, 4]
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert torch.equal(nearest_queries(batch), real)


def test_the_estimate_tries_the_evaluation(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    judged: list[int] = []
    monkeypatch.setattr(loop, "score", lambda contender, batch, *, seed: judged.append(len(batch.ids)))
    monkeypatch.setitem(chunks.__globals__, "CHUNK", 3)
    tiny_run(steps=1, progress=True, test_tasks=5)
    assert judged == [2]  # a chunk of the five tasks
    assert "of memory" in capsys.readouterr().err
