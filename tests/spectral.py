"""Games whose discriminators are under spectral norms, for the battery."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from pymgan.gan import GAN, Penalty
from pymgan.nn import Residual

__all__ = ["games"]


def _mlp(penalty: Penalty | None = None, loss: str = "nonsaturating") -> GAN:
    """Every layer but one; wide, narrow and with several power iterations."""
    return GAN(
        nn.Sequential(nn.Linear(3, 17), nn.SiLU(), nn.Linear(17, 4), nn.Tanh()),
        nn.Sequential(
            spectral_norm(nn.Linear(4, 17)),
            nn.SiLU(),
            nn.Linear(17, 18),
            nn.Tanh(),
            spectral_norm(nn.Linear(18, 3, bias=False), n_power_iterations=2),
            nn.SiLU(),
            spectral_norm(nn.Linear(3, 1)),
        ),
        (3,),
        loss=loss,
        penalty=penalty,
    )


def _images(loss: str = "hinge") -> GAN:
    """SNGAN in small: both kinds of convolution, a Linear from an image and one to an image, a residual block."""
    return GAN(
        nn.Sequential(nn.Linear(3, 18), nn.Unflatten(1, (2, 3, 3)), nn.Tanh()),
        nn.Sequential(
            spectral_norm(nn.Conv2d(2, 5, 2)),
            nn.SiLU(),
            Residual(nn.Tanh(), spectral_norm(nn.Conv2d(5, 5, 1))),
            spectral_norm(nn.ConvTranspose2d(5, 3, 2, bias=False)),
            nn.Tanh(),
            nn.Flatten(),
            spectral_norm(nn.Linear(27, 8)),
            nn.Unflatten(1, (2, 2, 2)),
            nn.SiLU(),
            nn.Conv2d(2, 1, 2),
            nn.Flatten(),
        ),
        (3,),
        loss=loss,
    )


def games() -> Iterator[tuple[str, GAN, dict[str, Any]]]:
    """(name, game, how its inner loop runs)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # of the first u
        yield "plain", _mlp(), {"storage": "phi", "masks": "random"}
        yield (
            "alternating",
            _mlp(loss="relativistic"),
            {"play": "alternating", "scale": True, "masks": "critic"},
        )
        yield (
            "penalty",
            _mlp(Penalty("wgan_gp", 0.5), "wasserstein"),
            {"play": "alternating", "storage": "every:2", "optimisers": ("momentum",)},
        )
        yield "images", _images(), {"steps": 2, "fakes": 5, "reals": 3}
        yield (
            "switching",
            _mlp(Penalty("r1", 0.5, every=2)),
            {
                "optimisers": ("sgd", "adam", "extragradient"),
                "scale": True,
                "masks": "random",
                "real": "steps",
            },
        )
