"""Where a network has kinks: its pre-activations, on the way through it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pymgan.nn import Concat, Residual
from pymgan.reference_layers import forward

__all__ = ["watch"]


def watch(network: nn.Module, named: dict[str, Tensor], x: Tensor, seen: list[Tensor]) -> Tensor:
    """The network's output with parameters by their names; pre-activations go to `seen`, measured from their layer's kink."""

    def walk(module: nn.Module, x: Tensor, prefix: str) -> Tensor:
        if isinstance(module, nn.Sequential):
            for key, child in module._modules.items():
                x = walk(child, x, f"{prefix}{key}.")
            return x
        if isinstance(module, Residual):
            return walk(module.body, x, f"{prefix}body.") + walk(module.shortcut, x, f"{prefix}shortcut.")
        if isinstance(module, Concat):
            parts = [walk(each, x, f"{prefix}branches.{i}.") for i, each in enumerate(module.branches)]
            return torch.cat(parts, 1)
        if isinstance(module, (nn.ReLU, nn.LeakyReLU, nn.ELU, nn.PReLU)):
            seen.append(x)
        elif isinstance(module, nn.Softplus):
            seen.append(x - module.threshold / module.beta)
        return forward(module, named, x, prefix)

    return walk(network, x, "")
