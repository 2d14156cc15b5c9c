"""The float64 oracle of one pass, and how far from it a float32 result may be."""

from __future__ import annotations

import torch
from torch import Tensor

from . import ours
from .cases import Pass, Problem

EPS = torch.finfo(torch.float32).eps


class WrongResult(Exception):
    """A contestant's result is further from the oracle than float32 explains."""


class Oracle:
    """The true result of a pass, from torch.func on the modules themselves in float64.

    Attributes:
        truth: [P], or [T, P] of the pass `adapt`.
        allowed: the relative error that is let through: three times that of torch's own float32, with a floor.
    """

    def __init__(self, problem: Problem, which: Pass) -> None:
        self.truth = ours.build(problem, "reference", which, dtype=torch.float64)[0]()
        # phi_K lies close to phi_0, of which nothing need be computed: its error counts against the way that it went.
        went = self.truth - problem.phi.double() if which == "adapt" else self.truth
        self._size = went.norm()
        own = ours.build(problem, "reference", which, dtype=torch.float32)[0]()
        self.allowed = max(3 * self.error(own), 8 * EPS)

    def error(self, result: Tensor) -> float:
        """Euclidean norm of what `result` is off, relative to the truth's (of `adapt`: to that of phi_K - phi_0)."""
        return float((result.double() - self.truth).norm() / self._size)

    def check(self, result: Tensor) -> float:
        """The error.

        Raises:
            WrongResult: the shape is another, or the error is not within what is allowed (NaN never is).
        """
        if result.shape != self.truth.shape:
            raise WrongResult(f"expected a result of {list(self.truth.shape)}, got {list(result.shape)}")
        off = self.error(result)
        if not off <= self.allowed:
            raise WrongResult(f"error {off:.1e} against the oracle, expected at most {self.allowed:.1e}")
        return off
