"""Games of extragradient for the battery: what its second evaluation meets. The kind alone stands among the optimisers.

All are smooth: the battery looks for kinks where a step begins and ends, and not at the half point.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from pymgan.gan import GAN, Penalty

__all__ = ["games"]


def _pair(**more: Any) -> GAN:
    return GAN(
        nn.Sequential(nn.Linear(3, 17), nn.SiLU(), nn.Linear(17, 4), nn.Tanh()),
        nn.Sequential(nn.Linear(4, 17), nn.SiLU(), nn.Linear(17, 3), nn.Softplus(), nn.Linear(3, 1)),
        (3,),
        **more,
    )


def _convolutional() -> GAN:
    return GAN(
        nn.Sequential(nn.Linear(3, 8), nn.Unflatten(1, (2, 2, 2)), nn.ConvTranspose2d(2, 3, 2), nn.Tanh()),
        nn.Sequential(nn.Conv2d(3, 5, 2, 2, 1), nn.SiLU(), nn.Flatten(), nn.Linear(20, 1)),
        (3,),
    )


def games() -> Iterator[tuple[str, GAN, dict[str, Any]]]:
    """Names, games and how their inner loops run, in the words of a case."""
    alone: dict[str, Any] = {"optimisers": ("extragradient",)}
    alternating = {"play": "alternating"}
    yield "masks", _pair(), {**alone, "steps": 4, "masks": "random", "scale": True, "storage": "phi"}
    yield "critic", _pair(), {**alone, **alternating, "steps": 4, "masks": "critic", "scale": True}
    yield (
        "switching",
        _pair(label_smoothing=0.1),
        {
            "optimisers": ("adam", "extragradient", "sgd"),
            "steps": 5,
            "masks": "random",
            "scale": True,
            "storage": "nested",
            **alternating,
        },
    )
    yield (
        "relativistic",
        _pair(loss="relativistic"),
        {**alone, **alternating, "fakes": 3, "reals": 5, "real": "steps"},
    )
    yield (
        "r1",
        _pair(penalty=Penalty("r1", 0.7, every=2)),
        {**alone, "steps": 4, "reals": 6, "real": "pool", "storage": "every:2"},
    )
    yield (
        "wgan_gp-switching",
        _pair(loss="wasserstein", penalty=Penalty("wgan_gp", 0.5)),
        {"optimisers": ("extragradient", "optimistic"), "steps": 4, "masks": "random", **alternating},
    )
    yield "wgan_gp", _pair(loss="wasserstein", penalty=Penalty("wgan_gp", 0.5)), {**alone, "zero_rate": True}
    yield "conv", _convolutional(), {**alone, "fakes": 3, "steps": 2, "scale": True}
    yield "conv-alternating", _convolutional(), {**alone, **alternating, "reals": 2, "steps": 2}
