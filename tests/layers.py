"""Games of every layer beside Linear, convolutions and plain activations, for the battery: normalisations, PReLU, GELU, softmax,
pooling, upsampling, shuffles of pixels and residual blocks; flat, of sounds and of images, with and without penalties."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from pymgan.gan import GAN, Penalty
from pymgan.nn import Concat, Residual, Take

__all__ = ["games"]


def _layer_norm(penalty: Penalty | None = None, loss: str = "nonsaturating") -> GAN:
    return GAN(
        nn.Sequential(nn.Linear(3, 17), nn.LayerNorm(17), nn.SiLU(), nn.Linear(17, 4), nn.Tanh()),
        nn.Sequential(
            nn.Linear(4, 17),
            nn.LayerNorm(17),
            nn.SiLU(),
            nn.Linear(17, 3),
            nn.LayerNorm(3, elementwise_affine=False, eps=0.3),
            nn.Linear(3, 1),
        ),
        (3,),
        loss=loss,
        penalty=penalty,
    )


def _prelu() -> GAN:
    """One number for all features, and one each; where the network begins and ends, too."""
    return GAN(
        nn.Sequential(nn.Linear(3, 17), nn.PReLU(), nn.Linear(17, 4), nn.PReLU(4)),
        nn.Sequential(nn.PReLU(), nn.Linear(4, 17), nn.PReLU(17), nn.Linear(17, 1), nn.PReLU()),
        (3,),
        loss="least_squares",
    )


def _figr() -> GAN:
    """LayerNorm, PReLU and WGAN-GP on images, as FIGR has them."""
    return GAN(
        nn.Sequential(
            nn.Linear(3, 16),
            nn.Unflatten(1, (4, 2, 2)),
            nn.LayerNorm((4, 2, 2)),
            nn.PReLU(),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(4, 2, 3, padding=1),
        ),
        nn.Sequential(
            nn.Conv2d(2, 5, 3, 2, 1),
            nn.LayerNorm((5, 2, 2)),
            nn.PReLU(5),
            nn.Flatten(),
            nn.Linear(20, 1),
        ),
        (3,),
        loss="wasserstein",
        penalty=Penalty("wgan_gp", 0.5),
    )


def _gelu(penalty: Penalty | None = None) -> GAN:
    return GAN(
        nn.Sequential(nn.Linear(3, 17), nn.GELU(), nn.Linear(17, 4), nn.GELU("tanh")),
        nn.Sequential(nn.Linear(4, 17), nn.GELU("tanh"), nn.Linear(17, 3), nn.GELU(), nn.Linear(3, 1)),
        (3,),
        penalty=penalty,
    )


def _softmax() -> GAN:
    """A letter at each of three places; D softens what it sees."""
    return GAN(
        nn.Sequential(nn.Linear(3, 12), nn.Unflatten(1, (4, 3)), nn.Softmax(1)),
        nn.Sequential(nn.Flatten(), nn.Linear(12, 17), nn.Softmax(-1), nn.Linear(17, 1)),
        (3,),
        penalty=Penalty("r1", 1.0),
    )


def _text() -> GAN:
    """The same with convolutions."""
    return GAN(
        nn.Sequential(
            nn.Linear(3, 15),
            nn.Unflatten(1, (5, 3)),
            nn.InstanceNorm1d(5),
            nn.SiLU(),
            nn.Upsample(scale_factor=2, mode="linear"),
            nn.Conv1d(5, 4, 3, padding=1),
            nn.Softmax(1),
        ),
        nn.Sequential(
            nn.Conv1d(4, 6, 3, padding=1),
            nn.GELU(),
            nn.AvgPool1d(2),
            nn.Softmax(2),
            nn.Flatten(),
            nn.Linear(18, 1),
        ),
        (3,),
    )


def _residual(penalty: Penalty | None = None) -> GAN:
    """Shortcuts as they are and with a layer; from the input and to the output; an activation that only one branch sees."""
    return GAN(
        nn.Sequential(
            nn.Linear(3, 17),
            Residual(nn.SiLU(), nn.Linear(17, 5), nn.SiLU(), nn.Linear(5, 17)),
            Residual(nn.Linear(17, 4), nn.Tanh(), shortcut=nn.Linear(17, 4, bias=False)),
        ),
        nn.Sequential(
            Residual(nn.Linear(4, 6), nn.SiLU(), nn.Linear(6, 4)),
            nn.Linear(4, 17),
            Residual(nn.LayerNorm(17), Residual(nn.Tanh(), nn.Linear(17, 17)), nn.SiLU()),
            nn.Linear(17, 1),
        ),
        (3,),
        penalty=penalty,
    )


def _resnet() -> GAN:
    """Blocks of a residual network, with every way from one size to another."""
    return GAN(
        nn.Sequential(
            nn.Linear(3, 24),
            nn.Unflatten(1, (6, 2, 2)),
            Residual(
                nn.GroupNorm(3, 6),
                nn.SiLU(),
                nn.Upsample(scale_factor=2),
                nn.Conv2d(6, 4, 3, padding=1),
                shortcut=nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(6, 4, 1)),
            ),
            nn.Conv2d(4, 3, 3, padding=1),
            nn.Tanh(),
        ),
        nn.Sequential(
            Residual(
                nn.Conv2d(3, 5, 3, padding=1),
                nn.SiLU(),
                nn.AvgPool2d(2),
                shortcut=nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(3, 5, 1)),
            ),
            nn.Flatten(),
            nn.Linear(20, 1),
        ),
        (3,),
        penalty=Penalty("r1", 0.5),
    )


def _shuffled() -> GAN:
    """Pixels from channels; few and many channels; statistics of channels with numbers of their own."""
    return GAN(
        nn.Sequential(
            nn.Linear(3, 48),
            nn.Unflatten(1, (12, 2, 2)),
            nn.PixelShuffle(2),
            nn.InstanceNorm2d(3, affine=True),
            nn.SiLU(),
            nn.Conv2d(3, 8, 1),
            nn.PixelShuffle(2),
        ),
        nn.Sequential(
            nn.AvgPool2d(3, 2, 1, count_include_pad=False),
            nn.Conv2d(2, 18, 2),
            nn.GroupNorm(2, 18),
            nn.ELU(),
            nn.AvgPool2d(2, 1, divisor_override=3),
            nn.Flatten(),
            nn.LayerNorm(72),
            nn.Linear(72, 1),
        ),
        (3,),
        loss="hinge",
    )


def _flat_images() -> GAN:
    """Images without a convolution, so that features lie in torch's order."""
    return GAN(
        nn.Sequential(
            nn.Linear(3, 12),
            nn.Unflatten(1, (3, 2, 2)),
            nn.PReLU(3),
            nn.Upsample(size=(3, 4), mode="bilinear"),
            nn.GroupNorm(3, 3),
            nn.Upsample(scale_factor=1.5, mode="bilinear", align_corners=True),
        ),
        nn.Sequential(
            nn.AvgPool2d(2),
            nn.Softmax(1),
            nn.InstanceNorm2d(3, affine=True),
            nn.Flatten(),
            nn.Linear(18, 1),
        ),
        (3,),
        loss="least_squares",
    )


def _reordered() -> GAN:
    """Samples that are flattened and then lie as images of another shape."""
    return GAN(
        nn.Sequential(
            nn.Conv1d(2, 6, 1),
            nn.SiLU(),
            nn.Flatten(),
            nn.Unflatten(1, (3, 2, 2)),
            nn.Conv2d(3, 2, 1),
            nn.Flatten(),
        ),
        nn.Sequential(
            nn.Unflatten(1, (4, 2)),
            nn.Conv1d(4, 3, 1),
            nn.SiLU(),
            nn.Flatten(),
            Residual(nn.Linear(6, 6), nn.Tanh()),
            nn.Linear(6, 1),
        ),
        (2, 2),
    )


def _conditional() -> GAN:
    """z and samples end with a code, which G passes on; D looks at it beside the rest."""
    body = nn.Sequential(nn.Linear(5, 17), nn.SiLU(), nn.Linear(17, 4), nn.Tanh())
    return GAN(
        nn.Sequential(Concat(body, Take(3, 5))),
        nn.Sequential(
            Concat(nn.Linear(6, 7), nn.Sequential(Take(4, 6), nn.Linear(2, 3))), nn.SiLU(), nn.Linear(10, 1)
        ),
        (5,),
        penalty=Penalty("r1", 0.5),
    )


def _dense() -> GAN:
    """Images whose channels pile up."""
    return GAN(
        nn.Sequential(
            nn.Linear(3, 12),
            nn.Unflatten(1, (3, 2, 2)),
            Concat(nn.Identity(), nn.Sequential(nn.Conv2d(3, 2, 3, padding=1), nn.SiLU()), Take(1, 3)),
            nn.Conv2d(7, 2, 1),
        ),
        nn.Sequential(
            Concat(nn.Conv2d(2, 17, 1), nn.Conv2d(2, 3, 3, padding=1)),
            nn.SiLU(),
            nn.Flatten(),
            nn.Linear(80, 1),
        ),
        (3,),
    )


def _parallel() -> GAN:
    """Two functions of one input, each with its own derivatives."""
    return GAN(
        nn.Sequential(nn.Linear(3, 17), Concat(nn.Tanh(), nn.SiLU()), nn.Linear(34, 4)),
        nn.Sequential(Concat(nn.GELU(), nn.LeakyReLU(0.2)), nn.PReLU(), nn.Linear(8, 1)),
        (3,),
    )


def games() -> Iterator[tuple[str, GAN, dict[str, Any]]]:
    """Names, games and how their inner loops run, in the words of a case."""
    alternating = {"play": "alternating"}
    few = {"fakes": 3, "reals": 3, "steps": 2}
    yield "layer-norm", _layer_norm(), {"scale": True, "storage": "phi", "masks": "random"}
    yield (
        "layer-norm-wgan_gp",
        _layer_norm(Penalty("wgan_gp", 0.1), "wasserstein"),
        {"optimisers": ("momentum",), "momentum": 0.5, **alternating},
    )
    yield "prelu", _prelu(), {"optimisers": ("momentum",), "momentum": 0.5, "scale": True, **alternating}
    yield "figr", _figr(), {**few, "storage": "every:2"}
    yield "gelu", _gelu(), {"real": "steps", **alternating}
    yield "gelu-r1", _gelu(Penalty("r1", 1.0)), {"scale": True, "storage": "nested"}
    yield "softmax", _softmax(), {"fakes": 3, "reals": 5}
    yield "text", _text(), {**few, "scale": True, **alternating}
    yield "residual", _residual(), {"storage": "every:2", "steps": 4, "masks": "critic"}
    yield "residual-r2", _residual(Penalty("r2", 0.5)), {"scale": True, **alternating}
    yield "resnet", _resnet(), {**few, **alternating}
    yield "shuffled", _shuffled(), {**few, "scale": True, "real": "pool"}
    yield "conditional", _conditional(), {"scale": True, **alternating}
    yield "parallel", _parallel(), {"scale": True}
    yield "dense", _dense(), few
    yield "reordered", _reordered(), few
    yield "flat-images", _flat_images(), {"fakes": 2, "reals": 3, "steps": 2, **alternating}
