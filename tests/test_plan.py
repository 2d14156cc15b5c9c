"""What the plan compiler accepts, and the words with which it refuses the rest."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import pymgan
from pymgan.arch import dcgan, figr, resnet
from pymgan.arch_config import gan_from_config, gan_to_config
from pymgan.gan import GAN
from pymgan.nn import Concat, Residual, Take
from pymgan.plan import compile_plan
from tests.layers import games as layered_games


def game(*layers: nn.Module, latent: tuple[int, ...], discriminator: list[nn.Module] | None = None) -> GAN:
    """The layers as a generator, before a discriminator that takes whatever comes."""
    generator = nn.Sequential(*layers)
    sample = generator(torch.zeros(1, *latent))
    head = discriminator or [nn.Flatten(), nn.Linear(math.prod(sample.shape[1:]), 1)]
    return GAN(generator, nn.Sequential(*head), latent)


CONVOLUTIONS = [
    (nn.Conv1d(2, 3, 3), (2, 7)),
    (nn.Conv1d(2, 3, 4, stride=3, padding=2, dilation=2), (2, 9)),
    (nn.Conv1d(2, 3, 3, padding="same"), (2, 7)),
    (nn.Conv1d(2, 3, 3, padding="valid"), (2, 7)),
    (nn.Conv2d(1, 4, 4, 2, 1), (1, 8, 6)),
    (nn.Conv2d(3, 2, (1, 3), stride=(2, 1), padding=(0, 1), dilation=(1, 2), bias=False), (3, 5, 6)),
    (nn.ConvTranspose1d(2, 3, 4, stride=2, padding=1), (2, 5)),
    (nn.ConvTranspose1d(2, 3, 3, stride=3, output_padding=2, dilation=2), (2, 5)),
    (nn.ConvTranspose2d(5, 3, 3, stride=2, padding=1, output_padding=1), (5, 2, 3)),
    (nn.ConvTranspose2d(5, 3, (2, 1), stride=(1, 3), bias=False), (5, 2, 3)),
]


@pytest.mark.parametrize(("layer", "shape"), CONVOLUTIONS, ids=lambda value: str(value).replace(" ", ""))
def test_shapes_and_values_are_torchs(layer: nn.Module, shape: tuple[int, ...]) -> None:
    gan = game(layer, latent=shape)
    z = torch.randn(3, 2, *shape, generator=torch.Generator().manual_seed(0))
    expected = layer(z.flatten(0, 1)).detach()
    plan = compile_plan(gan)
    assert plan.sample == tuple(expected.shape[1:])
    assert plan.parameters == len(gan.parameters_vector())
    for name in ("cpu", "torch"):
        engine = pymgan.compile(gan, fakes=2, reals=2, engine=name)
        found = engine.generate(gan.parameters_vector(), z)
        torch.testing.assert_close(found.flatten(0, 1), expected)


@pytest.mark.parametrize(
    ("layer", "shape", "error", "message"),
    [
        (
            nn.Conv2d(2, 3, 3),
            (1, 5, 5),
            ValueError,
            r"layer 0: .*expected in_channels=1, the channels before it",
        ),
        (
            nn.Conv2d(2, 3, 3),
            (2, 5),
            ValueError,
            r"expected a sample of shape \(channels, extent, extent\), got",
        ),
        (nn.Conv1d(2, 3, 3), (2,), ValueError, r"expected a sample of shape \(channels, extent\), got"),
        (nn.Conv2d(2, 2, 3, groups=2), (2, 5, 5), ValueError, r"expected groups=1, got groups=2"),
        (
            nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect"),
            (2, 5, 5),
            ValueError,
            r"expected padding_mode='zeros', got padding_mode='reflect'",
        ),
        (nn.Conv2d(2, 2, 2, padding="same"), (2, 5, 5), ValueError, r"expected padding='same' with dilation"),
        (
            nn.Conv2d(2, 2, 7),
            (2, 5, 5),
            ValueError,
            r"expected a kernel that fits the sample, got an output of",
        ),
        (nn.Conv3d(2, 2, 1), (2, 5, 5, 5), NotImplementedError, r"layer 0 is Conv3d, which is not supported"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_refused(layer: nn.Module, shape: tuple[int, ...], error: type[Exception], message: str) -> None:
    gan = GAN(nn.Sequential(layer), nn.Sequential(nn.Flatten(), nn.Linear(4, 1)), shape)
    with pytest.raises(error, match=message):
        compile_plan(gan)


@pytest.mark.parametrize("make", [dcgan, resnet, figr])
@pytest.mark.parametrize("side", [8, 16, 32])
def test_convolutional_architectures(make: Callable[..., GAN], side: int) -> None:
    gan = make((3, side, side), channels=2, latent=5)
    plan = compile_plan(gan)
    assert plan.sample == (3, side, side)
    assert plan.parameters == len(gan.parameters_vector())
    assert gan.generator(torch.zeros(2, 5)).shape == (2, 3, side, side)
    assert gan.discriminator(torch.zeros(2, 3, side, side)).shape == (2, 1)
    assert gan_to_config(gan_from_config(gan_to_config(gan))) == gan_to_config(gan)
    for shape in ((1, 12, 12), (1, 4, 4), (1, 8, 16), (8,)):
        with pytest.raises(ValueError, match=f"expected arch '{make.__name__}' with square images"):
            make(shape)


@pytest.mark.parametrize("case", list(layered_games()), ids=lambda game: game[0])
def test_every_layer_is_saved_and_built_again(case: tuple[str, GAN, dict[str, Any]]) -> None:
    gan = case[1]
    again = gan_from_config(json.loads(json.dumps(gan_to_config(gan))))
    again.load_vector(gan.parameters_vector())
    z = torch.randn(3, *gan.latent, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(again.discriminator(again.generator(z)), gan.discriminator(gan.generator(z)))


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([nn.Linear(3, 4), nn.BatchNorm1d(4)], "expected nn.GroupNorm, .* got BatchNorm1d"),
        ([nn.Linear(3, 4), nn.LayerNorm(3)], "expected normalized_shape to be the last of"),
        ([nn.Linear(3, 4), nn.GroupNorm(1, 2)], "expected num_channels=4"),
        ([nn.Linear(3, 4), nn.PReLU(2)], "expected num_parameters of 1 or 4"),
        ([nn.Linear(3, 4), nn.Softmax(0)], "expected a dim from 1 to 1"),
        ([nn.Linear(3, 4), nn.Softmax(2)], "expected a dim from 1 to 1"),
        ([nn.Linear(3, 4), nn.AvgPool2d(2)], r"expected a sample of shape \(channels, extent, extent\)"),
        ([nn.Linear(3, 4), nn.Upsample(scale_factor=2)], "expected mode"),
        ([nn.Linear(3, 4), Residual(nn.Linear(4, 5))], r"expected a shortcut to \(5,\)"),
        ([nn.Linear(3, 4), Take(1, 5)], "expected channels up to 4"),
        (
            [nn.Linear(3, 8), nn.Unflatten(1, (2, 4)), Concat(nn.Identity(), nn.AvgPool1d(2))],
            "expected branches whose outputs differ in channels alone",
        ),
        ([nn.Linear(3, 4), Residual(nn.Dropout())], "layer 1.body.0 is Dropout, which is not supported"),
        (
            [nn.Linear(3, 8), nn.Unflatten(1, (2, 4)), nn.InstanceNorm1d(3)],
            r"expected a sample of shape \(3,",
        ),
        (
            [nn.Linear(3, 8), nn.Unflatten(1, (8, 1)), nn.InstanceNorm1d(8)],
            "expected more than one value a channel",
        ),
        (
            [nn.Linear(3, 8), nn.Unflatten(1, (2, 4)), nn.InstanceNorm1d(2, track_running_stats=True)],
            "track_running_stats=False",
        ),
        ([nn.Linear(3, 8), nn.Unflatten(1, (2, 2, 2)), nn.PixelShuffle(2)], "multiple of 4"),
        ([nn.Linear(3, 8), nn.Unflatten(1, (2, 2, 2)), nn.AvgPool2d(3)], "a kernel that fits"),
        ([nn.Linear(3, 8), nn.Unflatten(1, (2, 2, 2)), nn.AvgPool2d(2, ceil_mode=True)], "ceil_mode=False"),
        ([nn.Linear(3, 8), nn.Unflatten(1, (2, 2, 2)), nn.Upsample(4, mode="bicubic")], "expected mode"),
    ],
)
def test_layers_that_cannot_be(layers: list[nn.Module], message: str) -> None:
    with pytest.raises((ValueError, NotImplementedError), match=message):
        compile_plan(GAN(nn.Sequential(*layers), nn.Sequential(nn.Flatten(), nn.Linear(1, 1)), (3,)))
