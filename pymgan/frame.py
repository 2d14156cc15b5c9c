"""What interpreters in Python work on: the slots of one step and a program's tables."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pymgan.contract import Rng

__all__ = ["Compiled", "Frame", "Values", "noise_key"]

Values = dict[str, Tensor]


def noise_key(rng: Rng, steps: Tensor) -> Tensor:
    """int64 [T, 3]: what noise depends on, seed (its 64 bits), task and step [T] of every task."""
    seed = rng.seed - (rng.seed >> 63 << 64)
    tasks = rng.tasks.to(steps)
    return torch.stack((torch.full_like(tasks, seed), tasks, steps), 1)


def _absent() -> Tensor:
    """Stands for a slot that the procedure does not use."""
    return torch.empty(0)


@dataclass
class Frame:
    """What the slots of a procedure's values mean for one step, batched over T tasks.

    Attributes:
        phi, phi_next: [T, P], the second written in place; moment, moment_next: likewise, [T, moments * P].
        spectral, spectral_next: likewise, (u, v) of D's spectral norms [T, U + V].
        rate_scale: [P] or None.
        cotangent, d_scale: [C, T, P], written in place; v_moment: likewise, [C, T, moments * P].
        gradient: [2, T, P], written in place.
        residual: values kept by name from the step to its pull-back.
        rate: [T, 2]; active: bool [T, 2]; kind: [T], of the game's optimisers; number: [T, 2], of the update since the player's
            moments were zero.
        noise: the caller's z [T, fakes, features], or None; key: `noise_key` of the step, for everything else that is drawn.
        real: [T, reals, features]; inputs: of generate and generate_vjp.
        penalised: bool [T], whether D's penalty counts.
        d_rate: [C, T, 2], written in place.
        trace: [T, 8], written in place; valid: bool [T], cleared where a loss or gradient is not finite.
    """

    phi: Tensor
    phi_next: Tensor = field(default_factory=_absent)
    moment: Tensor = field(default_factory=_absent)
    moment_next: Tensor = field(default_factory=_absent)
    spectral: Tensor = field(default_factory=_absent)
    spectral_next: Tensor = field(default_factory=_absent)
    rate_scale: Tensor | None = None
    cotangent: Tensor = field(default_factory=_absent)
    v_moment: Tensor = field(default_factory=_absent)
    d_scale: Tensor = field(default_factory=_absent)
    gradient: Tensor = field(default_factory=_absent)
    residual: Values = field(default_factory=dict)
    rate: Tensor = field(default_factory=_absent)
    active: Tensor = field(default_factory=_absent)
    kind: Tensor = field(default_factory=_absent)
    number: Tensor = field(default_factory=_absent)
    noise: Tensor | None = None
    key: Tensor = field(default_factory=_absent)
    real: Tensor = field(default_factory=_absent)
    penalised: Tensor = field(default_factory=_absent)
    inputs: tuple[Tensor, ...] = ()
    output: Tensor = field(default_factory=_absent)
    d_rate: Tensor = field(default_factory=_absent)
    trace: Tensor = field(default_factory=_absent)
    valid: Tensor | None = None


class Compiled:
    """What a program's instructions refer to, once for all of their runs."""

    def __init__(self, program: Any, device: torch.device) -> None:
        self.device = device
        self.game, self.tensors, self.windows = program.game, program.tensors, program.windows
        self.z, self.x, self.sample = program.z, program.x, program.sample
        self.split = max(
            t.weight + t.n * t.taps * t.k + (t.n * t.bias_sites if t.bias >= 0 else 0)
            for t in self.tensors
            if t.player == 0
        )
        self.spectral, self.groups, self.maps = program.spectral, program.groups, program.maps
        self._listings: dict[int, tuple[list[Any], list[Any]]] = {}

    def spectral_in(self, u: Tensor) -> Tensor:
        """u [T, U] as a contract's state has it among (u, v); v follows from it."""
        parts = [u[:, :0]]
        for norm in self.spectral:
            t = self.tensors[norm.tensor]
            parts += [u[:, norm.state : norm.state + t.n], u.new_zeros(len(u), t.taps * t.k)]
        return torch.cat(parts, 1)

    def spectral_out(self, both: Tensor) -> Tensor:
        """And back."""
        parts = [both[:, norm.u : norm.u + self.tensors[norm.tensor].n] for norm in self.spectral]
        return torch.cat([both[:, :0], *parts], 1)

    def listing(self, procedure: Any) -> tuple[list[Any], list[Any]]:
        """A procedure's values and instructions. Each look at them is a copy, so they are looked at once; the program keeps its
        procedures where they are."""
        at = procedure.address
        if at not in self._listings:
            self._listings[at] = procedure.values, procedure.code
        return self._listings[at]
