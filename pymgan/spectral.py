"""Spectral norms of modules: ``torch.nn.utils.parametrizations.spectral_norm`` (Miyato et al. 2018, arXiv 1802.05957)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

__all__ = ["LAYERS", "Norm", "norm_of", "settle"]

LAYERS: tuple[type[nn.Module], ...] = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
)
"""Those that may have one."""


_SETTLED = 15  # iterations


@dataclass(frozen=True)
class Norm:
    """Of one layer's weight.

    Attributes:
        u: the left singular vector's estimate, float32, one number for each of the `outputs`, if it is along torch's default
            dimension.
        outputs: rows of the weight as a matrix.
        iterations: of the power method, once a step.
        eps: the least norm that u and v are divided by.
    """

    u: Tensor
    outputs: int
    iterations: int
    eps: float


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
    outputs = weight.shape[1] if transposed else weight.shape[0]
    return Norm(norm._u.detach().float().cpu().clone(), outputs, norm.n_power_iterations, float(norm.eps))


def settle(module: nn.Module) -> None:
    """Moves u and v of all spectral norms in a network to where their weights' own are, as torch does when it makes them."""
    for layer in module.modules():
        if parametrize.is_parametrized(layer) and norm_of(layer) is not None:
            by_name: Any = layer.parametrizations
            weight = by_name["weight"]
            norm = weight[0]
            norm._power_method(norm._reshape_weight_to_matrix(weight.original), _SETTLED)
