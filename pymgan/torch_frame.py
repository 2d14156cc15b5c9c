"""What the torch engine's interpreter works on: formulas, the slots of one step and a program's tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

__all__ = ["Compiled", "Frame", "Values", "evaluate"]

Values = dict[str, Tensor]

_OPERATIONS: dict[str, Callable[..., Tensor]] = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "div": torch.div,
    "neg": torch.neg,
    "exp": torch.exp,
    "expm1": torch.expm1,
    "log1p": torch.log1p,
    "tanh": torch.tanh,
    "erf": torch.erf,
    "abs": torch.abs,
    "sqrt": torch.sqrt,
    "max": torch.maximum,
    "where_positive": lambda c, a, b: torch.where(c > 0, a, b),
}


def evaluate(formula: tuple[Any, ...], variables: dict[str, Tensor]) -> Tensor:
    """A formula of the core (nested tuples) at tensors; constants become tensors of the variables' dtype."""
    kind, *arguments = formula
    if kind == "variable":
        return variables[arguments[0]]
    if kind == "constant":
        like = next(iter(variables.values()))
        return torch.full((), arguments[0], dtype=like.dtype, device=like.device)
    return _OPERATIONS[kind](*(evaluate(argument, variables) for argument in arguments))


def _no_noise(rows: int, columns: int) -> Tensor:
    raise RuntimeError(f"expected a frame with noise for [{rows}, {columns}], got one without")


def _no_mix(rows: int) -> Tensor:
    raise RuntimeError(f"expected a frame with {rows} numbers to mix by, got one without")


def _no_normals(stream: int, rows: int, columns: int) -> Tensor:
    raise RuntimeError(
        f"expected a frame with normals [{rows}, {columns}] of stream {stream}, got one without"
    )


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
        noise: makes z [T, rows, columns]; real: [T, reals, features]; inputs: of generate and generate_vjp.
        penalised: bool [T], whether D's penalty counts; mix: makes uniform numbers [T, rows].
        normals: makes the step's standard normals [T, rows, columns] of a stream, float64.
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
    noise: Callable[[int, int], Tensor] = _no_noise
    real: Tensor = field(default_factory=_absent)
    penalised: Tensor = field(default_factory=_absent)
    mix: Callable[[int], Tensor] = _no_mix
    normals: Callable[[int, int, int], Tensor] = _no_normals
    inputs: tuple[Tensor, ...] = ()
    output: Tensor = field(default_factory=_absent)
    d_rate: Tensor = field(default_factory=_absent)
    trace: Tensor = field(default_factory=_absent)
    valid: Tensor | None = None


class Compiled:
    """What a program's instructions refer to, once for all of their runs."""

    def __init__(self, program: Any) -> None:
        self.game, self.tensors, self.windows = program.game, program.tensors, program.windows
        self.z, self.x, self.sample = program.z, program.x, program.sample
        self.split = max(
            t.weight + t.n * t.taps * t.k + (t.n * t.bias_sites if t.bias >= 0 else 0)
            for t in self.tensors
            if t.player == 0
        )
        # Every element's own number, where a tensor has one for each.
        self.of = [torch.tensor(t.of, dtype=torch.int64) for t in self.tensors]
        self.groups = [torch.tensor(of) for of in program.groups]
        self.spectral = program.spectral
        self._listings: dict[int, tuple[list[Any], list[Any]]] = {}
        self.maps = [self._matrix(i, o, links) for i, o, links in program.maps]

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

    @staticmethod
    def _matrix(size_in: int, size_out: int, links: list[tuple[int, int, float]]) -> Tensor:
        """[out, in], and float64: a mean by a matrix of 1 / n would round every term."""
        to, source, factor = zip(*links, strict=True)
        matrix = torch.zeros(size_out, size_in, dtype=torch.float64)
        at = (torch.tensor(to), torch.tensor(source))
        return matrix.index_put_(at, torch.tensor(factor, dtype=torch.float64), accumulate=True)
