"""What a controller may turn: the rates of G and D, the optimiser's kind, and how often each player moves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ..contract import OPTIMISERS
from ..meta.base import number, whole

__all__ = ["OBSERVATIONS", "RATIOS", "REFERENCE", "Controls", "Turn"]

REFERENCE = {
    "sgd": 0.1,
    "normalised": 0.1,
    "momentum": 0.01,
    "nesterov": 0.01,
    "rmsprop": 0.003,
    "adam": 0.003,
    "optimistic": 0.1,
    "extragradient": 0.1,
}
"""The rate of each kind that an offset of 0 stands for, so that a change of kind alone keeps the size of steps about the same."""

OBSERVATIONS = (
    *("loss_g", "loss_d", "fake_mean", "fake_std", "real_mean", "real_std"),
    *("log_norm_g", "log_norm_d", "log_norm_ratio"),
    *("offset_g", "offset_d", "time_left", "quality", "improvement", "begun"),
)
"""What a controller sees of a task; all of it is there when a user adapts to a few images of their own."""

RATIOS = ((1, 1), (1, 2), (2, 1))
"""Updates of (G, D) for each other: both in every step, G in every second, D in every second."""


@dataclass(frozen=True)
class Turn:
    """How the next m inner steps of T tasks go.

    Attributes:
        rate: float64 [T, m, 2].
        kind: int64 [T, m], into the engine's optimisers.
        active: bool [T, m, 2].
    """

    rate: Tensor
    kind: Tensor
    active: Tensor


@dataclass(frozen=True, kw_only=True)
class Controls:
    """The bounds and steps of what is controlled. A rate is `REFERENCE` of its kind times exp(offset).

    Attributes:
        optimisers: kinds to choose from.
        ratios: pairs of (G, D) to choose from: in a cycle of as many steps as the larger says, the player with the smaller number
            moves that many times, evenly spread.
        every: m, inner steps between two actions.
        span: the offsets' bounds are -span and span.
        change: the largest change of an offset by one action.
        observe: those of `OBSERVATIONS` that the controller is given; the others are 0 for it.
    """

    optimisers: tuple[str, ...] = ("sgd", "normalised", "adam")
    ratios: tuple[tuple[int, int], ...] = RATIOS
    every: int = 2
    span: float = math.log(30.0)
    change: float = math.log(4.0)
    observe: tuple[str, ...] = OBSERVATIONS

    def __post_init__(self) -> None:
        if not self.optimisers or any(kind not in OPTIMISERS for kind in self.optimisers):
            raise ValueError(
                f"[rl2] expected optimisers among {', '.join(OPTIMISERS)}, got {self.optimisers!r}"
            )
        whole("every", self.every, least=1)
        for pair in self.ratios:
            if len(pair) != 2 or min(pair) < 1 or max(pair) % min(pair):
                raise ValueError(
                    f"[rl2] expected ratios as pairs of which one divides the other, got {pair!r}"
                )
        if unknown := set(self.observe) - set(OBSERVATIONS):
            raise ValueError(
                f"[rl2] expected observe among {', '.join(OBSERVATIONS)}, got {sorted(unknown)[0]!r}"
            )
        if not self.ratios:
            raise ValueError("[rl2] expected at least one ratio, got none")
        for name in ("span", "change"):
            number(name, getattr(self, name), low=0.0)

    @property
    def reference(self) -> tuple[float, ...]:
        """The rate of each optimiser that an offset of 0 stands for."""
        return tuple(REFERENCE[kind] for kind in self.optimisers)

    def to_config(self) -> dict[str, Any]:
        """As plain JSON values; `from_config` is the way back."""
        values = asdict(self)
        lists = {name: list(values[name]) for name in ("optimisers", "observe")}
        return values | lists | {"ratios": [list(pair) for pair in self.ratios]}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Controls:
        """The inverse of `to_config`."""
        lists = {
            "optimisers": tuple(config["optimisers"]),
            "ratios": tuple(map(tuple, config["ratios"])),
            "observe": tuple(config["observe"]),
        }
        return cls(**{**config, **lists})

    def moved(self, offset: Tensor, change: Tensor) -> Tensor:
        """The offsets [T, 2] after an action's change [T, 2] in [-1, 1]."""
        return (offset + self.change * change.clamp(-1, 1)).clamp(-self.span, self.span)

    def turn(self, offset: Tensor, kind: Tensor, ratio: Tensor, done: Tensor) -> Turn:
        """The next m steps.

        Args:
            offset: float64 [T, 2], or [T, m, 2] for one that changes within them.
            kind: int64 [T], index into `optimisers`.
            ratio: int64 [T], index into `ratios`.
            done: int64 [T], inner steps that each task has behind it.
        """
        m = self.every
        offsets = offset[:, None].expand(-1, m, -1) if offset.ndim == 2 else offset
        base = torch.tensor(self.reference, dtype=torch.float64)[kind]
        step = done[:, None, None] + torch.arange(m)[None, :, None]
        return Turn(
            rate=base[:, None, None] * offsets.exp(),
            kind=kind[:, None].expand(-1, m),
            active=step % self._periods()[ratio][:, None, :] == 0,
        )

    def _periods(self) -> Tensor:
        """[ratios, 2]: each player moves in every so many-th step."""
        return torch.tensor([_periods(pair) for pair in self.ratios])


def _periods(pair: Sequence[int]) -> tuple[int, int]:
    most = max(pair)
    return most // pair[0], most // pair[1]
