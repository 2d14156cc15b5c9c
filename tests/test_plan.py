"""What the plan compiler accepts, and the words with which it refuses the rest."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import pymgan
from pymgan.arch import dcgan, gan_from_config, gan_to_config
from pymgan.gan import GAN
from pymgan.plan import compile_plan


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


def test_an_image_out_of_nowhere() -> None:
    """Unflatten moves nothing, so that what it makes an image of has to be a Linear's output."""
    generator = [nn.Conv1d(2, 6, 1), nn.Flatten(), nn.Unflatten(1, (3, 2, 2)), nn.Conv2d(3, 1, 1)]
    with pytest.raises(ValueError, match="expected a Linear before a sample is unflattened"):
        pymgan.compile(game(*generator, latent=(2, 2)), fakes=2, reals=2, engine="cpu")


@pytest.mark.parametrize("side", [8, 16, 32])
def test_dcgan(side: int) -> None:
    gan = dcgan((3, side, side), channels=2, latent=5)
    plan = compile_plan(gan)
    assert plan.sample == (3, side, side)
    assert gan.discriminator(torch.zeros(2, 3, side, side)).shape == (2, 1)
    assert gan_to_config(gan_from_config(gan_to_config(gan))) == gan_to_config(gan)
    for shape in ((1, 12, 12), (1, 4, 4), (1, 8, 16), (8,)):
        with pytest.raises(ValueError, match="expected arch 'dcgan' with square images"):
            dcgan(shape)
