"""Layers that torch has not, for the networks of a GAN."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["Residual"]


class Residual(nn.Module):
    """``body(x) + shortcut(x)`` (He et al. 2016, arXiv 1512.03385).

    Args:
        layers: the body, in order.
        shortcut: how x reaches the sum where the body changes its shape, for instance a Conv2d with a kernel of one; None: as it
            is.
    """

    def __init__(self, *layers: nn.Module, shortcut: nn.Module | None = None) -> None:
        super().__init__()
        self.body = nn.Sequential(*layers)
        self.shortcut = nn.Identity() if shortcut is None else shortcut

    def forward(self, x: Tensor) -> Tensor:
        """[B, *in] to [B, *out]."""
        y: Tensor = self.body(x) + self.shortcut(x)
        return y
