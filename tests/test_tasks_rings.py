"""Rings: the mixture behind every task, that samples follow it, and that splits have no task in common."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import torch

from pymgan import tasks
from pymgan.tasks.mixtures import CENTRE, RADIUS, WIDTH


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_batch() -> None:
    rings = tasks.rings()
    batch = rings.sample(50, 8, 24, generator())
    assert rings.sample_shape == (2,)
    assert rings.classes == ()
    assert batch.support.shape == (50, 8, 2)
    assert batch.query.shape == (50, 24, 2)
    assert batch.support.dtype == torch.float32
    assert len(set(batch.ids.tolist())) == 50
    assert str(batch.classes[3]) == f"ring {int(batch.ids[3]) % 100_000:05d}"


def test_eight_modes_on_a_circle() -> None:
    ids = tasks.rings().sample(200, 1, 1, generator()).ids
    mixture = tasks.rings().mixture(ids)
    middle = mixture.centres.mean(1, keepdim=True)
    arms = (mixture.centres - middle).double()
    radius = arms.norm(dim=2)
    assert torch.allclose(radius, radius[:, :1].expand(-1, 8), rtol=1e-5)
    assert torch.allclose(mixture.deviation.double(), WIDTH * radius[:, 0], rtol=1e-5)
    turns = torch.atan2(arms[..., 1], arms[..., 0])
    steps = torch.remainder(turns.roll(-1, 1) - turns, 2 * math.pi)
    assert torch.allclose(steps, torch.full_like(steps, math.pi / 4), atol=1e-4)
    # Radius, centre and rotation all vary, over their whole range.
    assert float(radius.min()) < RADIUS[0] + 0.02
    assert float(radius.max()) > RADIUS[1] - 0.02
    assert float(middle.abs().max()) == pytest.approx(CENTRE, abs=0.02)
    first = torch.remainder(turns[:, 0], math.pi / 4) / (math.pi / 4)
    assert float(first.min()) < 0.05
    assert float(first.max()) > 0.95


def test_samples_follow_the_mixture() -> None:
    rings = tasks.rings()
    batch = rings.sample(20, 2000, 2000, generator())
    for side in (batch.support, batch.query):
        score = rings.modes(side, batch.ids)
        assert score.covered.tolist() == [8.0] * 20
        assert float(score.quality.mean()) == pytest.approx(1 - math.exp(-4.5), abs=0.002)
    mixture = rings.mixture(batch.ids)
    distance, mode = torch.cdist(batch.query, mixture.centres).min(2)
    assert torch.allclose(distance.square().mean(1).sqrt(), math.sqrt(2) * mixture.deviation, rtol=0.1), (
        "two coordinates with the deviation each"
    )
    assert float((distance / mixture.deviation[:, None]).max()) <= 4.001
    counts = torch.stack([(mode == number).sum(1) for number in range(8)], 1)
    assert int(counts.min()) > 180
    assert int(counts.max()) < 330


def test_samples_fit_a_tanh() -> None:
    batch = tasks.rings().sample(500, 50, 50, generator())
    assert float(torch.cat((batch.support, batch.query), 1).abs().max()) < 0.99


def test_modes_miss_what_is_not_there() -> None:
    rings = tasks.rings()
    ids = rings.sample(3, 1, 1, generator()).ids
    mixture = rings.mixture(ids)
    score = rings.modes(mixture.centres[:, :5], ids)
    assert score.covered.tolist() == [5.0] * 3
    assert score.quality.tolist() == [1.0] * 3
    middle = mixture.centres.mean(1, keepdim=True)
    assert rings.modes(middle, ids).quality.tolist() == [0.0] * 3


def test_splits_draw_different_tasks() -> None:
    rings = tasks.rings()
    ids = {
        name: set(rings.split(name).sample(400, 1, 1, generator()).ids.tolist())
        for name in ("train", "validation", "test")
    }
    assert not ids["train"] & ids["validation"]
    assert not ids["train"] & ids["test"]
    assert not ids["validation"] & ids["test"]
    # Not by luck: the number itself says to which split it belongs.
    for remainder, name in enumerate(("train", "validation", "test")):
        assert {number % 3 for number in ids[name]} == {remainder}
    assert {number % 3 for number in rings.sample(100, 1, 1, generator()).ids.tolist()} == {0, 1, 2}


def test_the_generator_decides_everything() -> None:
    train = tasks.rings().split("train")
    one, same, other = (train.sample(5, 4, 4, generator(seed)) for seed in (3, 3, 4))
    assert torch.equal(one.support, same.support)
    assert torch.equal(one.ids, same.ids)
    assert not torch.equal(one.support, other.support)
    again = pickle.loads(pickle.dumps(train))
    assert torch.equal(again.sample(5, 4, 4, generator(3)).query, one.query)
    assert again.fingerprint == train.fingerprint
    prints = {tasks.rings().fingerprint} | {
        tasks.rings().split(n).fingerprint for n in ("train", "validation", "test")
    }
    assert len(prints) == 4


def test_wrong_arguments() -> None:
    rings = tasks.rings()
    with pytest.raises(ValueError, match="expected shots >= 1, got 0"):
        rings.sample(1, 0, 1, generator())
    with pytest.raises(ValueError, match="expected a split of train, validation, test, got 'valid'"):
        rings.split("valid")
    with pytest.raises(ValueError, match="expected the whole distribution to split, got its test split"):
        rings.split("test").split("test")
