"""The oracle's networks: torch's own layers, but for normalisations and PReLU, which are written out.

torch 2.13's ``layer_norm`` with weights is some percent off at second order under ``torch.func.vmap``. Its PReLU's gradient at an
input of exactly zero is w, but the derivative of that by w is 0.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call

from pymgan.nn import Concat, Residual

_OF_CHANNELS = (nn.GroupNorm, nn.InstanceNorm1d, nn.InstanceNorm2d)


def forward(module: nn.Module, named: Mapping[str, Tensor], x: Tensor, prefix: str = "") -> Tensor:
    """The module's output on a batch x [B, *].

    Args:
        named: parameters by their names in the whole network, of which `prefix` is where the module stands.
    """
    if isinstance(module, nn.Sequential):
        for key, child in module._modules.items():
            if child is not None:
                x = forward(child, named, x, f"{prefix}{key}.")
        return x
    if isinstance(module, Residual):
        body = forward(module.body, named, x, f"{prefix}body.")
        return body + forward(module.shortcut, named, x, f"{prefix}shortcut.")
    if isinstance(module, Concat):
        parts = [
            forward(branch, named, x, f"{prefix}branches.{i}.") for i, branch in enumerate(module.branches)
        ]
        return torch.cat(parts, 1)
    own = {name: named[prefix + name] for name, _ in module.named_parameters()}
    y: Tensor
    if isinstance(module, nn.LayerNorm):
        kept = x.ndim - len(module.normalized_shape)
        y = _normalised(x.flatten(kept), module.eps).reshape(x.shape)
        return _scaled(y, own, tuple(module.normalized_shape))
    if isinstance(module, _OF_CHANNELS):
        groups = module.num_groups if isinstance(module, nn.GroupNorm) else x.shape[1]
        y = _normalised(x.reshape(len(x), groups, -1), module.eps).reshape(x.shape)
        return _scaled(y, own, (-1, *[1] * (x.ndim - 2)))
    if isinstance(module, nn.PReLU):
        shared = module.num_parameters == 1
        return torch.where(x > 0, x, own["weight"].view(1 if shared else -1, *[1] * (x.ndim - 2)) * x)
    y = functional_call(module, own, (x,))
    return y


def _normalised(x: Tensor, eps: float) -> Tensor:
    """Over the last dimension."""
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt()


def _scaled(y: Tensor, own: Mapping[str, Tensor], shape: tuple[int, ...]) -> Tensor:
    if "weight" in own:
        y = y * own["weight"].view(shape)
    return y + own["bias"].view(shape) if "bias" in own else y
