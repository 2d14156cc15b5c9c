"""What a user can get wrong in Python: one clear exception each, with what was expected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from face import TINY, tiny_gan, tiny_run
from torch import nn

import pymgan
from pymgan.samples import as_samples, image_format
from pymgan.tasks import get


@pytest.fixture(scope="module")
def run() -> pymgan.Run:
    return tiny_run(steps=1)


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (torch.zeros(5, 3), ValueError, r"expected samples of shape \[S, 2\], got \[5, 3\]"),
        (torch.zeros(5, 2, 2), ValueError, r"expected samples of shape"),
        (torch.zeros(2), ValueError, "one sample"),
        (torch.zeros(0, 2), ValueError, "at least 2 samples, got 0"),
        (torch.zeros(1, 2), ValueError, "at least 2 samples, got 1"),
        (torch.tensor([[0.0, float("nan")], [0.0, 1.0]]), ValueError, "NaN or infinity in 1 of 2"),
        (np.array([[0.0, np.inf], [np.nan, 1.0]]), ValueError, "NaN or infinity in 2 of 2"),
        (torch.zeros(5, 2, dtype=torch.complex64), TypeError, "real numbers"),
        (torch.zeros(5, 2, dtype=torch.bool), TypeError, "real numbers"),
        (torch.zeros(5, 2, dtype=torch.uint8), TypeError, r"x / 127.5 - 1"),
        ("images", TypeError, "array of numbers"),
        ([["a", "b"]], TypeError, "array of numbers"),
        (None, TypeError, "array of numbers"),
    ],
)
def test_samples_to_adapt_to(run: pymgan.Run, images: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        run.adapt(images)


def test_samples_on_another_device(run: pymgan.Run) -> None:
    with pytest.raises(ValueError, match="meta"):
        run.adapt(torch.zeros(5, 2, device="meta"))


@pytest.mark.parametrize("steps", [0, -1, 1.5, True])
def test_steps_of_an_adaptation(run: pymgan.Run, steps: Any) -> None:
    with pytest.raises(ValueError, match="steps >= 1"):
        run.adapt(torch.zeros(5, 2), steps=steps)


def test_number_of_samples_to_draw(run: pymgan.Run) -> None:
    few = run.adapt(torch.zeros(5, 2))
    for count in (0, -1, 2.5, True):
        with pytest.raises(ValueError, match="samples >= 1"):
            few.sample(count)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"steps": 0}, ValueError, "steps >= 1, got 0"),
        ({"steps": -1}, ValueError, "steps >= 1, got -1"),
        ({"steps": 2.0}, TypeError, "steps to be a whole number, got 2.0"),
        ({"tasks_per_step": 0}, ValueError, "tasks_per_step >= 1"),
        ({"shots": 1}, ValueError, "shots >= 2"),
        ({"queries": 1}, ValueError, "queries >= 2"),
        ({"seed": -1}, ValueError, "seed >= 0"),
        ({"seed": 2**63}, ValueError, "seed < 2"),
        ({"test_tasks": 1}, ValueError, "test_tasks >= 2"),
        ({"threads": 0}, ValueError, "threads"),
        ({"threads": -2}, ValueError, "threads"),
        ({"engine": "fast"}, ValueError, "engine"),
        ({"engine": "cuda"}, ValueError, "cuda"),
        ({"device": "cuda:0"}, ValueError, "cuda:0"),
        ({"controller": "rl3"}, ValueError, "controller=None"),
        ({"meta": 3}, TypeError, "pymgan.MAML"),
        ({"meta": "proto"}, ValueError, "expected a method"),
        ({"rivals": "joint"}, TypeError, "sequence"),
        ({"rivals": (3,)}, TypeError, "rivals"),
        ({"rivals": (pymgan.Joint(inner_steps=9),)}, ValueError, "same inner_steps = 2"),
        ({"callbacks": (3,)}, TypeError, "callbacks"),
    ],
)
def test_arguments_of_train(
    changes: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        tiny_run(tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()


def test_tasks_and_networks_that_do_not_fit() -> None:
    with pytest.raises(TypeError, match="from_arrays"):
        pymgan.train([torch.zeros(5, 2)], tiny_gan(), **TINY)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="nothing"):
        pymgan.train("nothing", tiny_gan(), **TINY)
    with pytest.raises(ValueError, match="arch"):
        pymgan.train(get("rings"), "transformer", **TINY)
    with pytest.raises(TypeError, match=r"pymgan\.GAN"):
        pymgan.train(get("rings"), nn.Linear(2, 2), **TINY)  # type: ignore[arg-type]
    wide = pymgan.arch.mlp((3,), latent=3, widths=(4,))
    with pytest.raises(ValueError, match=r"expected a generator of samples \[2\].*got \[3\]"):
        pymgan.train(get("rings"), wide, **TINY)
    apart = pymgan.GAN(nn.Sequential(nn.Linear(3, 2)), nn.Sequential(nn.Linear(4, 1)), latent=(3,))
    with pytest.raises((ValueError, RuntimeError), match="2"):
        pymgan.train(get("rings"), apart, **TINY)


def test_shots_larger_than_the_class_are_drawn_with_replacement_and_said() -> None:
    arrays = [np.random.default_rng(i).normal(size=(5 + i % 3, 2)).astype(np.float32) for i in range(12)]
    tasks = pymgan.tasks.from_arrays(arrays)
    with pytest.warns(UserWarning, match="replacement"):
        run = pymgan.train(tasks, tiny_gan(), **(TINY | {"shots": 12}))
    assert run.summary is not None


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="expected a run folder"):
        pymgan.load(tmp_path)
    with pytest.raises(FileNotFoundError):
        pymgan.load(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError):
        pymgan.FewShot.load(tmp_path / "nowhere")


def test_a_checkpoint_of_another_run(tmp_path: Path) -> None:
    tiny_run(tmp_path / "a")
    other = pymgan.arch.mlp((2,), latent=3, widths=(7,))
    pymgan.train(get("rings"), other, out=tmp_path / "b", **TINY)
    (tmp_path / "a" / "checkpoint.safetensors").write_bytes(
        (tmp_path / "b" / "checkpoint.safetensors").read_bytes()
    )
    (tmp_path / "a" / "summary.json").unlink()
    with pytest.raises(ValueError, match="parameters"):
        pymgan.load(tmp_path / "a")
    with pytest.raises(ValueError, match="parameters"):
        tiny_run(tmp_path / "a")


def test_a_checkpoint_without_its_config(tmp_path: Path) -> None:
    tiny_run(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(pymgan.CheckpointError, match=r"no config\.json"):
        tiny_run(tmp_path)


def test_layers_that_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="layer 1 is a Dropout"):
        pymgan.arch_config.describe(nn.Sequential(nn.Linear(2, 2), nn.Dropout()))


def test_samples_of_any_kind() -> None:
    data = np.arange(12, dtype=np.float64).reshape(3, 4)
    expected = torch.from_numpy(data).float()
    for value in (
        data,
        data.tolist(),
        expected,
        data.astype(np.float16),
        np.asfortranarray(data),
        Dlpack(expected),
    ):
        assert torch.equal(as_samples(value, (4,)), expected)
    frozen = data.copy()
    frozen.flags.writeable = False
    assert torch.equal(as_samples(frozen, (4,)), expected)
    assert torch.equal(as_samples(data[::-1], (4,)), expected.flip(0))
    assert as_samples(torch.zeros(3, 8, 8), (1, 8, 8)).shape == (3, 1, 8, 8)


class Dlpack:
    """Nothing but `__dlpack__`."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor = tensor

    def __dlpack__(self, **options: Any) -> Any:
        return self._tensor.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self._tensor.__dlpack_device__()


def test_images_need_an_image_shape() -> None:
    assert image_format((3, 8, 8)) == (8, 3)
    for shape in ((2,), (8, 8), (1, 8, 9), (2, 8, 8)):
        with pytest.raises(ValueError, match="expected a run on images"):
            image_format(shape)
