"""The oracle's spectral norms: W / sigma with sigma = u^T W v and constant u and v, written out (torch's own module moves its u
and v in every forward pass)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from pymgan.spectral import SETTLED, Norm, norm_of

_ORIGINAL = "parametrizations.weight.original"


class Vectors(NamedTuple):
    """u [U] and v [V] of all layers, one after the other, perhaps with axes before these."""

    u: Tensor
    v: Tensor


class SpectralNorms:
    """Those of a network.

    Attributes:
        module: the network with plain layers instead.
        u: as the network has it, [U].
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.norms: dict[
            str, tuple[Norm, bool]
        ] = {}  # by the layer's name; whether its weight's outputs are second
        for name, layer in module.named_modules():
            if parametrize.is_parametrized(layer) and (norm := norm_of(layer)) is not None:
                transposed = isinstance(layer, (nn.ConvTranspose1d, nn.ConvTranspose2d))
                self.norms[f"{name}."] = norm, transposed
        if self.norms:
            self.module = copy.deepcopy(module)
            for name in self.norms:
                self.module.set_submodule(name[:-1], _plain(self.module.get_submodule(name[:-1])))
        self.u = torch.cat([torch.zeros(0), *(norm.u for norm, _ in self.norms.values())])

    def iterate(self, named: Mapping[str, Tensor], u: Tensor, *, first: bool = False) -> Vectors:
        """What the power iterations of a step, or the first ones, make of u [U]."""
        all_u, all_v = [u[:0]], [u[:0]]
        at = 0
        for name, (norm, transposed) in self.norms.items():
            matrix = _matrix(named[name + _ORIGINAL], transposed).detach()
            own = u[at : at + norm.outputs]
            at += norm.outputs
            for _ in range(SETTLED if first else norm.iterations):
                v = _unit(matrix.T @ own, norm.eps)
                own = _unit(matrix @ v, norm.eps)
            all_u.append(own)
            all_v.append(v)
        return Vectors(torch.cat(all_u), torch.cat(all_v))

    def used(self, named: Mapping[str, Tensor], vectors: Vectors) -> dict[str, Tensor]:
        """The parameters of `module`."""
        parameters = dict(named)
        at_u = at_v = 0
        for name, (norm, transposed) in self.norms.items():
            weight = parameters.pop(name + _ORIGINAL)
            matrix = _matrix(weight, transposed)
            u = vectors.u[at_u : at_u + norm.outputs]
            v = vectors.v[at_v : at_v + matrix.shape[1]]
            at_u, at_v = at_u + len(u), at_v + len(v)
            parameters[f"{name}weight"] = weight / (u @ matrix @ v)
        return parameters


def _plain(layer: nn.Module) -> nn.Module:
    """The layer that was parametrized. (torch's remove_parametrizations changes the class, which copies of the layer share.)"""
    plain: nn.Module = nn.Module.__new__(parametrize.type_before_parametrizations(layer))
    plain.__dict__ = dict(layer.__dict__)
    weight = layer.get_parameter(_ORIGINAL)
    plain.__dict__ |= {"_modules": {}, "_parameters": {"weight": weight, **layer._parameters}}
    return plain


def _matrix(weight: Tensor, transposed: bool) -> Tensor:
    return (weight.transpose(0, 1) if transposed else weight).flatten(1)


def _unit(x: Tensor, eps: float) -> Tensor:
    return x / x.square().sum().sqrt().clamp(min=eps)
