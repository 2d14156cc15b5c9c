"""The architectures that `--arch` names, each an ordinary `nn.Sequential` of layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

import torch
from torch import nn

from .gan import GAN, Penalty
from .nn import Residual

__all__ = ["NAMES", "WGAN_GP", "dcgan", "figr", "make", "mlp", "resnet"]

WGAN_GP = Penalty("wgan_gp", 10.0)
"""As Gulrajani et al. 2017 (arXiv 1704.00028) weigh it."""


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Weights that depend on the seed alone; torch's own generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def mlp(
    shape: Sequence[int],
    *,
    latent: int = 32,
    widths: Sequence[int] = (128, 128),
    loss: str = "nonsaturating",
    seed: int = 0,
) -> GAN:
    """Two multi-layer perceptrons for samples of `shape`, LeakyReLU 0.2 between layers.

    For 16x16 images: G 32-128-128-256 with a tanh at the end, D 256-128-128-1. Samples of rank one (points,
    feature vectors) are not bounded, so their generator ends without the tanh.
    """
    size = math.prod(shape)
    image = len(shape) > 1
    with _seeded(seed):
        generator = _stack(latent, widths, size)
        discriminator = _stack(size, widths, 1)
    if image:
        generator += [nn.Tanh(), nn.Unflatten(1, tuple(shape))]
        discriminator.insert(0, nn.Flatten())
    return GAN(nn.Sequential(*generator), nn.Sequential(*discriminator), latent=(latent,), loss=loss)


def _stack(inputs: int, widths: Sequence[int], outputs: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Linear(inputs, width), nn.LeakyReLU(0.2)]
        inputs = width
    return [*layers, nn.Linear(inputs, outputs)]


def dcgan(
    shape: Sequence[int],
    *,
    latent: int = 64,
    channels: int = 16,
    loss: str = "nonsaturating",
    seed: int = 0,
) -> GAN:
    """Convolutions only (Radford et al. 2016, without batch norm): kernel 4, stride 2, LeakyReLU 0.2, tanh.

    From 4x4 on, each layer of G doubles the extent and halves the channels, down to `channels` before the last; D is its mirror.

    Args:
        shape: of one sample, (C, H, H) with H = 8, 16, 32, 64 or another power of two.

    Raises:
        ValueError: another shape.
    """
    widths = _widths("dcgan", shape, channels)
    with _seeded(seed):
        generator: list[nn.Module] = [
            nn.Unflatten(1, (latent, 1, 1)),
            nn.ConvTranspose2d(latent, widths[0], 4),
        ]
        for inner, outer in pairwise([*widths, shape[0]]):
            generator += [nn.LeakyReLU(0.2), nn.ConvTranspose2d(inner, outer, 4, 2, 1)]
        discriminator: list[nn.Module] = []
        for inner, outer in pairwise([shape[0], *reversed(widths)]):
            discriminator += [nn.Conv2d(inner, outer, 4, 2, 1), nn.LeakyReLU(0.2)]
        discriminator += [nn.Conv2d(widths[0], 1, 4), nn.Flatten()]
    return GAN(
        nn.Sequential(*generator, nn.Tanh()), nn.Sequential(*discriminator), latent=(latent,), loss=loss
    )


def resnet(
    shape: Sequence[int],
    *,
    latent: int = 64,
    channels: int = 16,
    loss: str = "nonsaturating",
    seed: int = 0,
) -> GAN:
    """Residual blocks without normalisation (Mescheder et al. 2018, arXiv 1801.04406): every block's last layer begins at a tenth
    of torch's weights, so that blocks begin near their shortcuts. Nearest upsampling in G, average pooling in D.

    Args:
        shape: of one sample, (C, H, H) with H = 8, 16, 32, 64 or another power of two.
        channels: of the largest images; every halving of the extent doubles them.

    Raises:
        ValueError: another shape.
    """
    widths = _widths("resnet", shape, channels)

    def block(inner: int, outer: int, resize: nn.Module, first: bool) -> Residual:
        last = nn.Conv2d(outer, outer, 3, padding=1)
        with torch.no_grad():
            last.weight *= 0.1
        enter = [nn.LeakyReLU(0.2), nn.Conv2d(inner, outer, 3, padding=1), nn.LeakyReLU(0.2)]
        matched = [] if inner == outer else [nn.Conv2d(inner, outer, 1, bias=False)]
        body = [resize, *enter, last] if first else [*enter, last, resize]
        return Residual(*body, shortcut=nn.Sequential(*([resize, *matched] if first else [*matched, resize])))

    with _seeded(seed):
        generator: list[nn.Module] = [nn.Linear(latent, widths[0] * 16), nn.Unflatten(1, (widths[0], 4, 4))]
        for inner, outer in pairwise([*widths, channels]):
            generator.append(block(inner, outer, nn.Upsample(scale_factor=2), first=True))
        generator += [nn.LeakyReLU(0.2), nn.Conv2d(channels, shape[0], 3, padding=1), nn.Tanh()]
        discriminator: list[nn.Module] = [nn.Conv2d(shape[0], channels, 3, padding=1)]
        for inner, outer in pairwise([channels, *reversed(widths)]):
            discriminator.append(block(inner, outer, nn.AvgPool2d(2), first=False))
        discriminator += [nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(widths[0] * 16, 1)]
    return GAN(nn.Sequential(*generator), nn.Sequential(*discriminator), latent=(latent,), loss=loss)


def figr(
    shape: Sequence[int],
    *,
    latent: int = 100,
    channels: int = 16,
    loss: str = "wasserstein",
    penalty: Penalty | None = WGAN_GP,
    seed: int = 0,
) -> GAN:
    """Residual blocks with LayerNorm and PReLU, trained with WGAN-GP: what FIGR is made of (Clouatre and Demers 2019, arXiv
    1901.02199).

    Args:
        shape: of one sample, (C, H, H) with H = 8, 16, 32, 64 or another power of two.
        channels: of the largest images; every halving of the extent doubles them.

    Raises:
        ValueError: another shape.
    """
    widths = _widths("figr", shape, channels)

    def enter(inner: int, outer: int, side: int) -> list[nn.Module]:
        return [nn.LayerNorm((inner, side, side)), nn.PReLU(), nn.Conv2d(inner, outer, 3, padding=1)]

    def up(inner: int, outer: int, side: int) -> Residual:
        resize = nn.Upsample(scale_factor=2)
        body = [*enter(inner, outer, side), resize, *enter(outer, outer, 2 * side)]
        return Residual(*body, shortcut=nn.Sequential(nn.Conv2d(inner, outer, 1), resize))

    def down(inner: int, outer: int, side: int) -> Residual:
        resize = nn.AvgPool2d(2)
        body = [*enter(inner, outer, side), *enter(outer, outer, side), resize]
        return Residual(*body, shortcut=nn.Sequential(resize, nn.Conv2d(inner, outer, 1)))

    with _seeded(seed):
        side, generator = 4, [nn.Linear(latent, widths[0] * 16), nn.Unflatten(1, (widths[0], 4, 4))]
        for inner, outer in pairwise([*widths, channels]):
            generator.append(up(inner, outer, side))
            side *= 2
        generator += [*enter(channels, shape[0], side), nn.Tanh()]
        discriminator: list[nn.Module] = [nn.Conv2d(shape[0], channels, 3, padding=1)]
        for inner, outer in pairwise([channels, *reversed(widths)]):
            discriminator.append(down(inner, outer, side))
            side //= 2
        discriminator += [
            nn.LayerNorm((widths[0], 4, 4)),
            nn.PReLU(),
            nn.Flatten(),
            nn.Linear(widths[0] * 16, 1),
        ]
    return GAN(
        nn.Sequential(*generator),
        nn.Sequential(*discriminator),
        latent=(latent,),
        loss=loss,
        penalty=penalty,
    )


def _widths(name: str, shape: Sequence[int], channels: int) -> list[int]:
    """Channels at 4x4, 8x8, ... up to half of the extent."""
    side = int(shape[-1])
    if len(shape) != 3 or shape[1] != side or side < 8 or side & (side - 1):
        raise ValueError(
            f"expected arch {name!r} with square images of 8, 16, 32 or 64 pixels, got {tuple(shape)}"
        )
    doublings = side.bit_length() - 3
    return [channels << (doublings - 1 - i) for i in range(doublings)]


_CONVOLUTIONAL: dict[str, Callable[..., GAN]] = {"dcgan": dcgan, "resnet": resnet, "figr": figr}
NAMES = ("mlp", *_CONVOLUTIONAL)


def make(name: str, shape: Sequence[int], *, loss: str | None = None, seed: int = 0) -> GAN:
    """A GAN by the name that `--arch` takes: "mlp", "mlp:256,256" with hidden widths of one's own, "dcgan", "resnet", "figr", or
    "dcgan:32" with the channels of the largest images.

    Args:
        loss: None: the architecture's own ("wasserstein" with WGAN-GP of figr, "nonsaturating" of others). The penalty stays.

    Raises:
        ValueError: an unknown name, widths that are not positive numbers, or samples that the architecture cannot make.
    """
    kind, _, rest = name.partition(":")
    if kind not in NAMES:
        raise ValueError(
            f"expected arch 'mlp', 'mlp:128,128' (hidden widths), {', '.join(map(repr, _CONVOLUTIONAL))} or "
            f"'dcgan:32' (channels), got {name!r}"
        )
    try:
        widths = tuple(int(part) for part in rest.split(",")) if rest else ()
    except ValueError:
        widths = (0,)
    if any(width < 1 for width in widths):
        raise ValueError(f"expected positive widths as in arch 'mlp:128,128' or 'dcgan:32', got {name!r}")
    if kind == "mlp":
        return mlp(shape, widths=widths or (128, 128), loss=loss or "nonsaturating", seed=seed)
    if len(widths) > 1:
        raise ValueError(f"expected one number of channels as in arch '{kind}:32', got {name!r}")
    own = {} if loss is None else {"loss": loss}
    return _CONVOLUTIONAL[kind](shape, channels=widths[0] if widths else 16, seed=seed, **own)
