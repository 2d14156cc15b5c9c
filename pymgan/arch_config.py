"""Networks as data for the run folder."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm

from .gan import GAN, Penalty
from .nn import Concat, Residual, Take
from .spectral import norm_of

__all__ = ["build", "describe", "gan_from_config", "gan_to_config"]

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
    nn.GELU: ("approximate",),
    nn.PReLU: ("num_parameters",),
    nn.Softmax: ("dim",),
    nn.LayerNorm: ("normalized_shape", "eps", "elementwise_affine", "bias"),
    nn.GroupNorm: ("num_groups", "num_channels", "eps", "affine"),
    **dict.fromkeys((nn.InstanceNorm1d, nn.InstanceNorm2d), ("num_features", "eps", "affine")),
    nn.AvgPool1d: ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad"),
    nn.AvgPool2d: (
        *("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad"),
        "divisor_override",
    ),
    nn.Upsample: ("size", "scale_factor", "mode", "align_corners", "recompute_scale_factor"),
    nn.PixelShuffle: ("upscale_factor",),
    Take: ("start", "stop"),
}
_BY_NAME = {layer.__name__: layer for layer in _LAYERS}


def describe(network: nn.Sequential) -> list[list[Any]]:
    """A Sequential as rows `[layer, arguments]` of plain JSON values, `[layer, arguments, name]` if its name is not its number.

    Raises:
        ValueError: a layer that cannot be described; the message names it.
    """
    return _describe_layers(network, "")


def _describe_layers(network: nn.Sequential, prefix: str) -> list[list[Any]]:
    rows: list[list[Any]] = []
    for index, (name, layer) in enumerate(network._modules.items()):
        if layer is not None:
            row = _describe_layer(layer, f"{prefix}{index}")
            rows.append(row if name == str(len(rows)) else [*row, name])
    return rows


def _describe_layer(layer: nn.Module, place: str) -> list[Any]:
    if isinstance(layer, nn.Sequential):
        return ["Sequential", {"layers": _describe_layers(layer, f"{place}.")}]
    if isinstance(layer, Residual):
        _, body = _describe_layer(layer.body, f"{place}.body")
        return ["Residual", {**body, "shortcut": _describe_layer(layer.shortcut, f"{place}.shortcut")}]
    if isinstance(layer, Concat):
        branches = [_describe_layer(each, f"{place}.{index}") for index, each in enumerate(layer.branches)]
        return ["Concat", {"branches": branches}]
    if parametrize.is_parametrized(layer):
        return ["spectral_norm", _describe_norm(layer, place)]
    return _describe_plain(layer, type(layer), place)


def _describe_norm(layer: nn.Module, place: str) -> dict[str, Any]:
    norm = norm_of(layer)
    if norm is None:
        raise ValueError(
            f"layer {place} is parametrized: it cannot be written to a run folder; expected spectral_norm at most"
        )
    return {
        "layer": _describe_plain(layer, parametrize.type_before_parametrizations(layer), place),
        "n_power_iterations": norm.iterations,
        "eps": norm.eps,
        "u": norm.u.tolist(),
    }


def _describe_plain(layer: nn.Module, kind: type[nn.Module], place: str) -> list[Any]:
    names = _LAYERS.get(kind)
    if names is None:
        known = ", ".join(sorted(_BY_NAME))
        raise ValueError(
            f"layer {place} is a {kind.__name__}: it cannot be written to a run folder; expected {known}"
        )
    arguments = {name: getattr(layer, name) for name in names}
    if "bias" in arguments:
        arguments["bias"] = arguments["bias"] is not None
    # Plain JSON has lists.
    return [
        kind.__name__,
        {key: list(value) if isinstance(value, tuple) else value for key, value in arguments.items()},
    ]


def build(rows: Iterable[Sequence[Any]]) -> nn.Sequential:
    """The Sequential that `describe` described, with fresh weights."""
    layers = OrderedDict[str, nn.Module]()
    for index, (kind, arguments, *name) in enumerate(rows):
        layers[name[0] if name else str(index)] = _build_layer(kind, arguments)
    return nn.Sequential(layers)


def _build_layer(name: str, arguments: dict[str, Any]) -> nn.Module:
    if name == "Sequential":
        return build(arguments["layers"])
    if name == "Residual":
        return Residual(*build(arguments["layers"]), shortcut=_build_layer(*arguments["shortcut"]))
    if name == "Concat":
        return Concat(*(_build_layer(*row) for row in arguments["branches"]))
    if name == "spectral_norm":
        u = torch.tensor(arguments["u"])
        layer = _build_layer(*arguments["layer"])
        normed: Any = spectral_norm(
            layer, n_power_iterations=arguments["n_power_iterations"], eps=arguments["eps"]
        )
        normed.parametrizations["weight"][0]._u.copy_(u)
        return layer
    if name not in _BY_NAME:
        raise ValueError(
            f"expected one of {', '.join(sorted(_BY_NAME))}, got the layer {name!r}; use a newer pymgan"
        )
    return _BY_NAME[name](
        **{key: tuple(value) if isinstance(value, list) else value for key, value in arguments.items()}
    )


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
