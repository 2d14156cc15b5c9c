"""Spectral norms of modules: ``torch.nn.utils.parametrizations.spectral_norm`` (Miyato et al. 2018, arXiv 1802.05957)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

__all__ = ["LAYERS", "Norm", "iterated", "norm_of", "normalise_all", "settle"]

LAYERS: tuple[type[nn.Module], ...] = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
)
"""Those that may have one."""


SETTLED = 15
"""Power iterations where a state begins, as torch has them."""


@dataclass(frozen=True)
class Norm:
    """Of one layer's weight.

    Attributes:
        u: the left singular vector's estimate, float32, one number for each of the `outputs`, if it is along torch's default
            dimension.
        shape: of the weight.
        transposed: whether its outputs are the second dimension.
        iterations: of the power method, once a step.
        eps: the least norm that u and v are divided by.
    """

    u: Tensor
    shape: tuple[int, ...]
    transposed: bool
    iterations: int
    eps: float

    @property
    def outputs(self) -> int:
        """Rows of the weight as a matrix."""
        return self.shape[1] if self.transposed else self.shape[0]

    def settled(self, weight: Tensor) -> Tensor:
        """u [T, outputs] as a new state has it: moved to where weights [T, *] have theirs, as torch does when it makes a norm."""
        tensors = weight.view(-1, *self.shape)
        matrices = (tensors.transpose(1, 2) if self.transposed else tensors).flatten(2)
        return iterated(matrices, self.u.to(weight).expand(len(weight), -1), SETTLED, self.eps)[0]


def iterated(w: Tensor, u: Tensor, iterations: int, eps: float) -> tuple[Tensor, Tensor]:
    """u [T, n] and v [T, k] after power iterations of W [T, n, k]: v = W^T u / |.|, u = W v / |.|."""
    for _ in range(iterations):
        v = _unit(torch.einsum("tnk,tn->tk", w, u), eps)
        u = _unit(torch.einsum("tnk,tk->tn", w, v), eps)
    return u, v


def norm_of(layer: nn.Module) -> Norm | None:
    """The spectral norm of a layer's weight; None where the layer is parametrized in another way."""
    by_name: Any = layer.parametrizations
    if list(by_name) != ["weight"] or len(by_name["weight"]) != 1:
        return None
    norm = by_name["weight"][0]
    if not isinstance(norm, parametrizations._SpectralNorm):
        return None
    weight = by_name["weight"].original
    transposed = parametrize.type_before_parametrizations(layer) in (nn.ConvTranspose1d, nn.ConvTranspose2d)
    u = norm._u.detach().float().cpu().clone()
    return Norm(u, tuple(weight.shape), transposed, norm.n_power_iterations, float(norm.eps))


def normalise_all(module: nn.Module, *, seed: int = 0) -> None:
    """Puts every linear layer and convolution of a network under a spectral norm, as SNGAN has it, with u of the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for layer in [m for m in module.modules() if type(m) in LAYERS]:
            parametrizations.spectral_norm(layer)


def settle(module: nn.Module) -> None:
    """Moves u and v of all spectral norms in a network to where their weights' own are, as torch does when it makes them."""
    for layer in module.modules():
        if parametrize.is_parametrized(layer) and norm_of(layer) is not None:
            by_name: Any = layer.parametrizations
            weight = by_name["weight"]
            norm = weight[0]
            norm._power_method(norm._reshape_weight_to_matrix(weight.original), SETTLED)


def _unit(x: Tensor, eps: float) -> Tensor:
    unit: Tensor = x / torch.linalg.vector_norm(x, dim=1, keepdim=True).clamp(min=eps)
    return unit
