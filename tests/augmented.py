"""Games whose D is given augmented samples, or noisy ones: each kind alone and all together, images and sounds, flat and
convolutional, with penalties of what D is given.

Extents of 4 and more are shifted, by a site to either side; odd ones have another block than even ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

from pymgan.gan import AUGMENTATIONS, GAN, Penalty

__all__ = ["games"]


def _leaky() -> nn.Module:
    return nn.LeakyReLU(0.2)


def _flat(between: Callable[[], nn.Module], shape: tuple[int, ...], size: int, **more: Any) -> GAN:
    """Linears on samples of `shape`, `size` numbers."""
    return GAN(
        nn.Sequential(nn.Linear(3, 9), between(), nn.Linear(9, size), nn.Tanh(), nn.Unflatten(1, shape)),
        nn.Sequential(
            nn.Flatten(), nn.Linear(size, 17), between(), nn.Linear(17, 3), between(), nn.Linear(3, 1)
        ),
        (3,),
        **more,
    )


def _image(between: Callable[[], nn.Module], **more: Any) -> GAN:
    """Convolutional, (3, 6, 4)."""
    return GAN(
        nn.Sequential(
            nn.Linear(3, 12), nn.Unflatten(1, (2, 3, 2)), nn.ConvTranspose2d(2, 3, 2, 2), nn.Tanh()
        ),
        nn.Sequential(nn.Conv2d(3, 5, 3, 2, 1), between(), nn.Conv2d(5, 1, (3, 2))),
        (3,),
        **more,
    )


def _sound(between: Callable[[], nn.Module], **more: Any) -> GAN:
    """Convolutional, (17, 5): more channels than one vector has, and an activation before D's first layer."""
    return GAN(
        nn.Sequential(nn.Linear(3, 10), nn.Unflatten(1, (2, 5)), nn.Conv1d(2, 17, 3, padding=1)),
        nn.Sequential(nn.SiLU(), nn.Conv1d(17, 2, 3, 2, 1), between(), nn.Conv1d(2, 1, 3)),
        (3,),
        **more,
    )


def _points(between: Callable[[], nn.Module], **more: Any) -> GAN:
    return GAN(
        nn.Sequential(nn.Linear(3, 9), between(), nn.Linear(9, 4)),
        nn.Sequential(nn.Linear(4, 17), between(), nn.Linear(17, 1)),
        (3,),
        **more,
    )


def games() -> Iterator[tuple[str, GAN, dict[str, Any]]]:
    """Names, games and how their inner loops run, in the words of a case."""
    everything: dict[str, Any] = {"augment": AUGMENTATIONS}
    alternating = {"play": "alternating"}
    image, sound = {"shape": (2, 4, 3), "size": 24}, {"shape": (2, 5), "size": 10}
    yield "brightness", _flat(nn.SiLU, **image, augment=("brightness",)), {"scale": True, "storage": "phi"}
    yield (
        "translation",
        _flat(_leaky, **sound, augment=("translation",)),
        {"optimisers": ("momentum",), "momentum": 0.5, "fakes": 5, "reals": 2, "real": "pool", **alternating},
    )
    yield (
        "cutout",
        _flat(_leaky, **image, augment=("cutout",), loss="hinge"),
        {"fakes": 2, "reals": 5, "masks": "random", "real": "steps"},
    )
    yield "noise", _points(nn.SiLU, instance_noise=0.5), {"real": "pool", "scale": True}
    yield (
        "noise-alternating",
        _points(_leaky, instance_noise=0.3, loss="least_squares"),
        {"masks": "critic", "steps": 4, "storage": "every:2", **alternating},
    )
    yield (
        "all",
        _flat(nn.SiLU, **image, **everything, instance_noise=0.2),
        {"optimisers": ("adam",), "steps": 4, "masks": "random", "reals": 3, **alternating},
    )
    yield "all-batch-1", _flat(_leaky, **sound, **everything), {"fakes": 1, "reals": 1, **alternating}
    for play in ("simultaneous", "alternating"):
        yield (
            f"all-relativistic-{play}",
            _flat(nn.Tanh, **sound, **everything, instance_noise=0.1, loss="relativistic"),
            {"reals": 6, "masks": "random", "play": play},
        )
    yield (
        "all-r1",
        _flat(nn.Softplus, **image, **everything, instance_noise=0.1, penalty=Penalty("r1", 1.0, every=2)),
        {"steps": 4, "optimisers": ("momentum",), "momentum": 0.5, "reals": 5, **alternating},
    )
    yield (
        "all-r2",
        _flat(nn.SiLU, **sound, **everything, instance_noise=0.1, penalty=Penalty("r2", 1.0)),
        {"fakes": 3, "real": "steps", "zero_rate": True, "storage": "nested"},
    )
    yield (
        "all-wgan_gp",
        _flat(nn.SiLU, **image, **everything, loss="wasserstein", penalty=Penalty("wgan_gp", 0.5)),
        {"scale": True, "masks": "critic", **alternating},
    )
    yield (
        "all-conv",
        _image(_leaky, **everything),
        {"fakes": 3, "reals": 2, "steps": 2, "storage": "phi", **alternating},
    )
    yield (
        "all-conv-1d",
        _sound(nn.Tanh, **everything, instance_noise=0.2),
        {"fakes": 2, "reals": 3, "steps": 2, "scale": True},
    )
    yield (
        "all-conv-wgan_gp",
        _image(
            nn.SiLU, **everything, instance_noise=0.1, loss="wasserstein", penalty=Penalty("wgan_gp", 0.5)
        ),
        {"fakes": 2, "reals": 2, "steps": 2, "optimisers": ("nesterov",), "momentum": 0.5},
    )
