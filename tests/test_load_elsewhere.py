"""`pymgan.load` on another engine or device than the run's, and the steps of a steered adaptation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from face import tiny_gan, tiny_run

import pymgan
from pymgan.rl2.environments.gan_control import OBSERVATION_SPACE, action_space
from pymgan.rl2.policy import Policy


def test_a_run_of_a_gpu_opens_without_one(tmp_path: Path) -> None:
    images = torch.randn(6, 2)
    expected = tiny_run(tmp_path, steps=1, engine="cpu").adapt(images).sample(3, seed=0)
    config = json.loads((tmp_path / "config.json").read_text())
    config["settings"] |= {"engine": "cuda", "device": "cuda:7"}
    (tmp_path / "config.json").write_text(json.dumps(config))

    run = pymgan.load(tmp_path, device="cpu", threads=1)
    assert run.settings.engine == "cuda"  # what it was trained with
    assert torch.equal(run.adapt(images).sample(3, seed=0), expected)
    other = pymgan.load(tmp_path, engine="torch", device="cpu").adapt(images).sample(3, seed=0)
    torch.testing.assert_close(other, expected, rtol=1e-3, atol=1e-4)
    with pytest.raises(ValueError, match="cuda"):
        pymgan.load(tmp_path).adapt(images)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "abacus"}, "engine: expected one of auto, cpu.*got 'abacus'"),
        ({"engine": ""}, "engine: expected one of auto, cpu.*got ''"),
        ({"device": "moon"}, "device: expected.*got 'moon'"),
    ],
)
def test_bad_places_are_refused_at_once(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    tiny_run(tmp_path, steps=1)
    with pytest.raises(ValueError, match=message):
        pymgan.load(tmp_path, **options)


@pytest.mark.parametrize("steps", [0, -2, True, 1.0])
def test_a_steered_run_refuses_bad_steps(steps: Any) -> None:
    recipe, gan, images = pymgan.RL2(steps=4, hidden=4), tiny_gan(), torch.randn(4, 2)
    engine = pymgan.compile(gan, fakes=4, reals=4, threads=1, **recipe.inner_loop())
    phi, ids = gan.parameters_vector(), torch.zeros(1, dtype=torch.int64)
    policy = Policy(OBSERVATION_SPACE, action_space(recipe.controls), hidden=4)
    run = tiny_run(steps=1)
    run.controller = pymgan.Controller(recipe, policy)
    with pytest.raises(ValueError, match="expected steps >= 1, got"):
        run.adapt(images, steps)
    if steps == 0:
        with pytest.raises(ValueError, match="expected steps as a multiple"):
            run.controller.adapt(engine, phi, images[None], ids, steps=0)
