"""Spectral norms in the torch engine, over T tasks: W [T, n, k], u [T, n], v [T, k], sigma [T]. The formulas are explained in
csrc/spectral.h."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["normed", "pulled_back", "pushed_forward"]


def normed(w: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """W / sigma, and sigma."""
    sigma = _along(w, u, v)
    return w / _each(sigma), sigma


def pushed_forward(w: Tensor, used: Tensor, sigma: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """The change of W / sigma, which is `used`, along w, and sigma's."""
    d_sigma = _along(w, u, v)
    return (w - _each(d_sigma) * used) / _each(sigma), d_sigma


def pulled_back(
    cotangent: Tensor,
    used: Tensor,
    sigma: Tensor,
    u: Tensor,
    v: Tensor,
    change: tuple[Tensor, Tensor, Tensor] | None,
) -> Tensor:
    """W's cotangent of that of W / sigma. change: (the gradient by W / sigma, the change of that along which W's gradient
    changes too, sigma's change)."""
    of_r = _inner(used, cotangent)
    if change is not None:
        slope, along, d_sigma = change
        share = d_sigma / sigma
        cotangent = cotangent - _each(share) * slope
        of_r = of_r + _inner(along, slope) - share * _inner(used, slope)
    return (cotangent - _each(of_r) * torch.einsum("tn,tk->tnk", u, v)) / _each(sigma)


def _along(w: Tensor, u: Tensor, v: Tensor) -> Tensor:
    return torch.einsum("tnk,tn,tk->t", w, u, v)


def _inner(a: Tensor, b: Tensor) -> Tensor:
    return torch.einsum("tnk,tnk->t", a, b)


def _each(numbers: Tensor) -> Tensor:
    return numbers[:, None, None]
