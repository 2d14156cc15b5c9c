"""Convolutional games for the battery: both kinds in one and two dimensions, odd extents, few and many channels, and every way
from flat samples to images and back."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from pymgan.gan import GAN

__all__ = ["GAMES"]


def _dcgan() -> GAN:
    """A latent image of one site up to one channel; the score is an image of one site."""
    return GAN(
        nn.Sequential(
            nn.ConvTranspose2d(6, 5, 2), nn.LeakyReLU(0.2), nn.ConvTranspose2d(5, 1, 4, 2, 1), nn.Tanh()
        ),
        nn.Sequential(nn.Conv2d(1, 17, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(17, 1, 2)),
        (6, 1, 1),
    )


def _linears() -> GAN:
    """Linear to an image with an activation between, output padding, three channels, Linear from an image."""
    return GAN(
        nn.Sequential(
            nn.Linear(3, 20),
            nn.SiLU(),
            nn.Unflatten(1, (5, 2, 2)),
            nn.ConvTranspose2d(5, 3, 3, stride=2, padding=1, output_padding=1),
            nn.Tanh(),
        ),
        nn.Sequential(
            nn.Conv2d(3, 17, 3, stride=2, padding=1),
            nn.ELU(),
            nn.Flatten(),
            nn.Linear(68, 5),
            nn.SiLU(),
            nn.Linear(5, 1),
        ),
        (3,),
        loss="least_squares",
    )


def _sound() -> GAN:
    """One dimension, a latent of several sites and channels, dilation."""
    return GAN(
        nn.Sequential(
            nn.Conv1d(2, 5, 3, padding=1),
            nn.Softplus(),
            nn.ConvTranspose1d(5, 3, 4, stride=2, dilation=2),
            nn.Tanh(),
        ),
        nn.Sequential(
            nn.Conv1d(3, 17, 3, dilation=2),
            nn.Tanh(),
            nn.Conv1d(17, 2, 3, stride=3),
            nn.Flatten(),
            nn.Linear(4, 1),
        ),
        (2, 3),
    )


def _oblong() -> GAN:
    """Kernels, strides, paddings and dilations that differ by dimension; no biases; sites that no tap reaches."""
    return GAN(
        nn.Sequential(
            nn.Linear(2, 12, bias=False),
            nn.Unflatten(1, (2, 2, 3)),
            nn.ConvTranspose2d(2, 5, (1, 2), stride=(2, 3), bias=False),
            nn.LeakyReLU(0.3),
            nn.Conv2d(5, 2, (2, 3), stride=(1, 2), padding=(1, 0), dilation=(2, 1), bias=False),
        ),
        nn.Sequential(
            nn.Conv2d(2, 6, (3, 1), padding=(1, 0), bias=False),
            nn.Sigmoid(),
            nn.Flatten(),
            nn.Linear(54, 1, bias=False),
        ),
        (2,),
        loss="wasserstein",
    )


def _wide() -> GAN:
    """Whole vectors of channels, as fast networks have them."""
    return GAN(
        nn.Sequential(
            nn.Linear(5, 32 * 2),
            nn.LeakyReLU(0.2),
            nn.Unflatten(1, (32, 1, 2)),
            nn.ConvTranspose2d(32, 16, (2, 3), 2, (0, 1)),
            nn.Tanh(),
        ),
        nn.Sequential(
            nn.Conv2d(16, 16, (2, 3), 2, (0, 1)),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            nn.Linear(32, 1),
        ),
        (5,),
    )


def _one_convolves(which: str) -> Callable[[], GAN]:
    """An MLP against a convolutional network; three channels, so that torch's order is not the engine's."""

    def make() -> GAN:
        mlp_g = nn.Sequential(
            nn.Linear(3, 17), nn.SiLU(), nn.Linear(17, 12), nn.Tanh(), nn.Unflatten(1, (3, 2, 2))
        )
        conv_g = nn.Sequential(
            nn.Linear(3, 8), nn.Unflatten(1, (2, 2, 2)), nn.Conv2d(2, 3, 3, padding=1), nn.Tanh()
        )
        mlp_d = nn.Sequential(nn.Flatten(), nn.Linear(12, 17), nn.SiLU(), nn.Linear(17, 1))
        conv_d = nn.Sequential(nn.Conv2d(3, 5, 2), nn.SiLU(), nn.Flatten(), nn.Linear(5, 1))
        return GAN(conv_g if which == "G" else mlp_g, conv_d if which == "D" else mlp_d, (3,))

    return make


def _through_flat() -> GAN:
    """From an image through one Linear to another, where every input site meets every output site."""
    return GAN(
        nn.Sequential(
            nn.Conv2d(2, 5, 1),
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(20, 18),
            nn.Unflatten(1, (6, 1, 3)),
            nn.ConvTranspose2d(6, 2, (2, 1)),
        ),
        nn.Sequential(nn.Conv2d(2, 5, (2, 2)), nn.SiLU(), nn.Flatten(), nn.Linear(10, 1)),
        (2, 2, 2),
        loss="hinge",
    )


GAMES: dict[str, Callable[[], GAN]] = {
    "dcgan": _dcgan,
    "linears": _linears,
    "sound": _sound,
    "oblong": _oblong,
    "wide": _wide,
    "only-G": _one_convolves("G"),
    "only-D": _one_convolves("D"),
    "through-flat": _through_flat,
}
