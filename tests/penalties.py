"""Games with gradient penalties for the battery: every kind, smooth and with kinks, with every form of step.

A LeakyReLU network's score is linear in its sample between kinks, so that a penalty of it has no second derivative there; the
smooth ones have all three.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

from pymgan.gan import GAN, Penalty

__all__ = ["games"]


def _pair(
    between: Callable[[], nn.Module], penalty: Penalty, loss: str = "nonsaturating", **more: Any
) -> GAN:
    """Three layers of D, so that a penalty passes through a row between two others."""
    return GAN(
        nn.Sequential(nn.Linear(3, 17), between(), nn.Linear(17, 4), nn.Tanh()),
        nn.Sequential(nn.Linear(4, 17), between(), nn.Linear(17, 3), between(), nn.Linear(3, 1)),
        (3,),
        loss=loss,
        penalty=penalty,
        **more,
    )


def _leaky() -> nn.Module:
    return nn.LeakyReLU(0.2)


def _convolutional(between: Callable[[], nn.Module], penalty: Penalty, loss: str = "nonsaturating") -> GAN:
    """D convolves, with stride and padding; its score's gradient is a transposed convolution."""
    return GAN(
        nn.Sequential(nn.Linear(3, 8), nn.Unflatten(1, (2, 2, 2)), nn.ConvTranspose2d(2, 3, 2), nn.Tanh()),
        nn.Sequential(nn.Conv2d(3, 5, 2, 2, 1), between(), nn.Conv2d(5, 1, 2)),
        (3,),
        loss=loss,
        penalty=penalty,
    )


def games() -> Iterator[tuple[str, GAN, dict[str, Any]]]:
    """Names, games and how their inner loops run, in the words of a case."""
    alternating = {"play": "alternating"}
    yield "r1", _pair(nn.SiLU, Penalty("r1", 0.7)), {"scale": True, "storage": "phi"}
    yield (
        "r1-adam",
        _pair(nn.Softplus, Penalty("r1", 1.5, every=2)),
        {"steps": 4, "optimisers": ("adam",), "real": "steps", **alternating},
    )
    yield (
        "r1-leaky",
        _pair(_leaky, Penalty("r1", 2.0), "hinge"),
        {"optimisers": ("momentum",), "momentum": 0.5, "real": "pool", "reals": 6, **alternating},
    )
    yield (
        "r2-switching",
        _pair(nn.ELU, Penalty("r2", 1.0), label_smoothing=0.1),
        {
            "steps": 4,
            "optimisers": ("adam", "sgd", "optimistic"),
            "masks": "random",
            "fakes": 3,
            "scale": True,
        },
    )
    yield "r2-batch-1", _pair(_leaky, Penalty("r2", 1.0)), {"fakes": 1, "reals": 1, **alternating}
    yield (
        "wgan_gp-adam",
        _pair(nn.SiLU, Penalty("wgan_gp", 0.5), "wasserstein"),
        {"optimisers": ("adam",), "storage": "nested", **alternating},
    )
    yield (
        "wgan_gp-leaky",
        _pair(_leaky, Penalty("wgan_gp", 1.0), "wasserstein"),
        {"real": "steps", "masks": "critic", "zero_rate": True, "steps": 4},
    )
    yield (
        "zero_centred",
        _pair(nn.Tanh, Penalty("zero_centred", 0.5, every=2), "least_squares"),
        {"optimisers": ("momentum",), "momentum": 0.5, "steps": 5, "storage": "every:2", "real": "pool"},
    )
    yield "zero_centred-leaky-batch-1", _pair(_leaky, Penalty("zero_centred", 0.5)), {"fakes": 1, "reals": 1}
    yield (
        "r1-conv",
        _convolutional(_leaky, Penalty("r1", 1.0)),
        {"fakes": 2, "reals": 3, "steps": 2, "scale": True},
    )
    yield (
        "wgan_gp-conv",
        _convolutional(nn.SiLU, Penalty("wgan_gp", 0.5), "wasserstein"),
        {"fakes": 2, "reals": 2, "steps": 2, "storage": "phi", **alternating},
    )
