"""Networks: the architectures that `--arch` names, and `nn.Sequential` as data for the run folder."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from .gan import GAN, Penalty

__all__ = ["build", "dcgan", "describe", "gan_from_config", "gan_to_config", "make", "mlp"]

_CONVOLUTION = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "bias")

# What of each layer makes it up again. Constructor arguments have the names of the attributes, except where
# noted below.
_LAYERS: dict[type[nn.Module], tuple[str, ...]] = {
    nn.Linear: ("in_features", "out_features", "bias"),
    **dict.fromkeys((nn.Conv1d, nn.Conv2d), _CONVOLUTION),
    **dict.fromkeys((nn.ConvTranspose1d, nn.ConvTranspose2d), (*_CONVOLUTION, "output_padding")),
    nn.LeakyReLU: ("negative_slope",),
    nn.ReLU: (),
    nn.ELU: ("alpha",),
    nn.SiLU: (),
    nn.Softplus: ("beta", "threshold"),
    nn.Tanh: (),
    nn.Sigmoid: (),
    nn.Identity: (),
    nn.Flatten: ("start_dim", "end_dim"),
    nn.Unflatten: ("dim", "unflattened_size"),
}
_BY_NAME = {layer.__name__: layer for layer in _LAYERS}


def describe(network: nn.Sequential) -> list[list[Any]]:
    """A Sequential as rows `[layer, arguments]` of plain JSON values.

    Raises:
        ValueError: a layer that cannot be described; the message names it.
    """
    rows: list[list[Any]] = []
    for index, layer in enumerate(network):
        if isinstance(layer, nn.Sequential):
            rows.append(["Sequential", {"layers": describe(layer)}])
            continue
        names = _LAYERS.get(type(layer))
        if names is None:
            known = ", ".join(sorted(_BY_NAME))
            raise ValueError(
                f"layer {index} is a {type(layer).__name__}: it cannot be written to a run folder; "
                f"expected {known}"
            )
        arguments = {name: getattr(layer, name) for name in names}
        if "bias" in arguments:
            arguments["bias"] = arguments["bias"] is not None
        if "unflattened_size" in arguments:
            arguments["unflattened_size"] = [int(size) for size in arguments["unflattened_size"]]
        # Plain JSON has lists.
        arguments = {
            key: list(value) if isinstance(value, tuple) else value for key, value in arguments.items()
        }
        rows.append([type(layer).__name__, arguments])
    return rows


def build(rows: Iterable[Sequence[Any]]) -> nn.Sequential:
    """The Sequential that `describe` described, with fresh weights."""
    layers: list[nn.Module] = []
    for name, arguments in rows:
        if name == "Sequential":
            layers.append(build(arguments["layers"]))
        elif name in _BY_NAME:
            layers.append(_BY_NAME[name](**arguments))
        else:
            raise ValueError(
                f"expected one of {', '.join(sorted(_BY_NAME))}, got the layer {name!r}; use a newer pymgan"
            )
    return nn.Sequential(*layers)


def gan_to_config(gan: GAN) -> dict[str, Any]:
    """Everything of a GAN except its weights, as plain JSON values."""
    config: dict[str, Any] = {
        "generator": describe(gan.generator),
        "discriminator": describe(gan.discriminator),
        "latent": list(gan.latent),
        "loss": gan.loss,
        "label_smoothing": gan.label_smoothing,
    }
    if gan.penalty is not None:  # without one as it was before there were any: old runs can be resumed
        config["penalty"] = asdict(gan.penalty)
    if gan.augment:
        config["augment"] = list(gan.augment)
    if gan.instance_noise:
        config["instance_noise"] = gan.instance_noise
    return config


def gan_from_config(config: dict[str, Any]) -> GAN:
    """The GAN that `gan_to_config` described, with weights that do not matter."""
    with torch.random.fork_rng(devices=[]):
        return GAN(
            build(config["generator"]),
            build(config["discriminator"]),
            latent=tuple(config["latent"]),
            loss=config["loss"],
            label_smoothing=config["label_smoothing"],
            penalty=Penalty(**config["penalty"]) if "penalty" in config else None,
            augment=tuple(config.get("augment", ())),
            instance_noise=config.get("instance_noise", 0.0),
        )


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
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
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
    side = int(shape[-1])
    if len(shape) != 3 or shape[1] != side or side < 8 or side & (side - 1):
        raise ValueError(
            f"expected arch 'dcgan' with square images of 8, 16, 32 or 64 pixels, got {tuple(shape)}"
        )
    doublings = side.bit_length() - 3
    widths = [channels << (doublings - 1 - i) for i in range(doublings)]  # of 4x4, 8x8, ...
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
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


def make(name: str, shape: Sequence[int], *, loss: str = "nonsaturating", seed: int = 0) -> GAN:
    """A GAN by the name that `--arch` takes: "mlp", "mlp:256,256" with hidden widths of one's own, "dcgan", or "dcgan:32"
    with the channels before its last layer.

    Raises:
        ValueError: an unknown name, widths that are not positive numbers, or samples that the architecture cannot make.
    """
    kind, _, rest = name.partition(":")
    if kind not in ("mlp", "dcgan"):
        raise ValueError(
            f"expected arch 'mlp', 'mlp:128,128' (hidden widths), 'dcgan' or 'dcgan:32' (channels), got {name!r}"
        )
    try:
        widths = tuple(int(part) for part in rest.split(",")) if rest else ()
    except ValueError:
        widths = (0,)
    if any(width < 1 for width in widths):
        raise ValueError(f"expected positive widths as in arch 'mlp:128,128' or 'dcgan:32', got {name!r}")
    if kind == "mlp":
        return mlp(shape, widths=widths or (128, 128), loss=loss, seed=seed)
    if len(widths) > 1:
        raise ValueError(f"expected one number of channels as in arch 'dcgan:32', got {name!r}")
    return dcgan(shape, channels=widths[0] if widths else 16, loss=loss, seed=seed)
