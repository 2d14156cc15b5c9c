"""Layers that torch has not, for the networks of a GAN."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["Concat", "Residual", "Take"]


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


class Concat(nn.Module):
    """The outputs of several branches on one input, their channels one after the other.

    With `Take` it makes a GAN class-conditional: z and samples end with the class's one-hot code, which G passes on,

        nn.Sequential(Concat(nn.Sequential(nn.Linear(32 + 10, 128), ..., nn.Linear(128, 2)), Take(32, 42)))

    so that D sees every sample and its class. Noise is then given (`Data.noise`), with the codes.

    Args:
        branches: modules whose outputs differ in nothing but their channels (or features).
    """

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        if not branches:
            raise ValueError("[Concat] expected at least one branch, got none")
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        """[B, *in] to [B, sum of the branches' channels, *extents]."""
        return torch.cat([branch(x) for branch in self.branches], 1)


class Take(nn.Module):
    """Channels (or features) `start` to `stop` of a sample.

    Args:
        start: from 0.
        stop: beyond the last, more than `start`.
    """

    def __init__(self, start: int, stop: int) -> None:
        super().__init__()
        if not 0 <= start < stop:
            raise ValueError(f"[Take] expected 0 <= start < stop, got {start} and {stop}")
        self.start, self.stop = start, stop

    def forward(self, x: Tensor) -> Tensor:
        """[B, channels, *extents] to [B, stop - start, *extents]."""
        return x[:, self.start : self.stop]

    def extra_repr(self) -> str:
        """As the constructor has it."""
        return f"{self.start}, {self.stop}"
