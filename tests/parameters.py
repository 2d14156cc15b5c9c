"""Random parameters of networks, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from pymgan.gan import GAN
from pymgan.spectral import LAYERS as PRODUCTS

__all__ = ["leaves", "parameters"]


def leaves(module: nn.Module) -> Iterator[nn.Module]:
    """Layers in order, containers left out."""
    children = [] if parametrize.is_parametrized(module) else list(module.children())
    if not children:
        yield module
    for child in children:
        yield from leaves(child)


def parameters(
    rng: np.random.Generator, gan: GAN, tasks: int, zero_head: str = "", gain: float = 1.2
) -> Tensor:
    """Parameters [T, P] float32 of unit-variance networks, other ones for every task."""
    parts = []
    for player, network in (("G", gan.generator), ("D", gan.discriminator)):
        layers = list(leaves(network))
        last = [layer for layer in layers if isinstance(layer, PRODUCTS)][-1:]
        for layer in layers:
            for name, parameter in layer.named_parameters():
                if name == "bias":
                    drawn = rng.normal(0, 0.3, (tasks, parameter.numel()))
                elif isinstance(layer, nn.PReLU):
                    drawn = rng.normal(0.25, 0.2, (tasks, parameter.numel()))
                elif isinstance(layer, PRODUCTS):
                    outputs = layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
                    deviation = gain * math.sqrt(outputs / parameter.numel())
                    drawn = rng.normal(0, deviation, (tasks, parameter.numel()))
                else:
                    drawn = rng.normal(1, 0.3, (tasks, parameter.numel()))
                parts.append(0 * drawn if player in zero_head and layer in last else drawn)
    return torch.from_numpy(np.concatenate(parts, axis=1)).float()
