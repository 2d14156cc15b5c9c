"""What happens to elements after they are accumulated: `Apply` of csrc/plan.h."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from .activations import activation
from .launch import stride


@dataclass(frozen=True)
class Epilogue:
    """An `Apply` and its operands.

    Attributes:
        apply: "store", "act", "chain" or "chain2".
        activation, attributes: f and its numbers; order: of the derivative that "act" applies.
        ref, q, g: [T, rows, columns]; pre: likewise, where the accumulated elements go too.
        out: [T, rows, columns].
    """

    out: Tensor
    apply: str = "store"
    activation: str = "identity"
    attributes: Sequence[float] = (0.0, 0.0)
    order: int = 0
    ref: Tensor | None = None
    q: Tensor | None = None
    g: Tensor | None = None
    pre: Tensor | None = None

    def operands(self) -> tuple[Any, ...]:
        """As `finish` takes them, each with the stride between its tasks."""
        operands: list[Any] = []
        for x in (self.ref, self.q, self.g, self.pre, self.out):
            operands += [x, stride(x)]
        return tuple(operands)

    def constants(self) -> dict[str, Any]:
        return {
            "APPLY": self.apply,
            "ACTIVATION": self.activation,
            "P0": float(self.attributes[0]),
            "P1": float(self.attributes[1]),
            "ORDER": self.order,
        }

    def written(self) -> list[Tensor]:
        return [x for x in (self.pre, self.out) if x is not None]


@triton.jit
def finish(
    x,  # accumulated elements
    at,  # where they are in a task's samples
    ok,
    task,
    ref,  # [T, rows, columns], as all of these
    ref_task,
    q,
    q_task,
    g,
    g_task,
    pre,
    pre_task,
    out,
    out_task,
    APPLY: tl.constexpr,
    ACTIVATION: tl.constexpr,
    P0: tl.constexpr,
    P1: tl.constexpr,
    ORDER: tl.constexpr,
):
    if pre is not None:
        tl.store(pre + task * pre_task + at, x, mask=ok)
    if APPLY == "act":
        x = activation(x, P0, P1, ACTIVATION, ORDER)
    elif APPLY != "store":
        r = tl.load(ref + task * ref_task + at, mask=ok, other=0.0)
        x = activation(r, P0, P1, ACTIVATION, 1) * x
        if q is not None:
            bend = tl.load(q + task * q_task + at, mask=ok, other=0.0)
            bend *= tl.load(g + task * g_task + at, mask=ok, other=0.0)
            x += activation(r, P0, P1, ACTIVATION, 2) * bend
    tl.store(out + task * out_task + at, x, mask=ok)
