"""The compiled core's formulas, evaluated with torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["evaluate"]

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
