"""The float64 oracle of one pass, and how far from it a float32 result may be."""

from __future__ import annotations

import torch
from torch import Tensor

from . import ours
from .cases import Pass, Problem

EPS = torch.finfo(torch.float32).eps
# What float32 explains, in units of the error of torch's own. A peer with coarser functions (XLA's, over many steps) is no wrong
# one, and leaving it out would flatter us; a term that it left out would be off by thousands of times as much.
OURS, PEERS = 3.0, 10.0


class WrongResult(Exception):
    """A contestant's result is further from the oracle than float32 explains."""


class Oracle:
    """The true result of a pass, from torch.func on the modules themselves in float64.

    Attributes:
        truth: [P], or [T, P] of the pass `adapt`.
        own: the error of torch's own float32.
    """

    def __init__(self, problem: Problem, which: Pass) -> None:
        self.truth = ours.build(problem, "reference", which, dtype=torch.float64)[0]()
        # phi_K lies close to phi_0, of which nothing need be computed: its error counts against the way that it went.
        went = self.truth - problem.phi.double() if which == "adapt" else self.truth
        self._size = went.norm()
        self.own = self.error(ours.build(problem, "reference", which, dtype=torch.float32)[0]())

    def error(self, result: Tensor) -> float:
        """Euclidean norm of what `result` is off, relative to the truth's (of `adapt`: to that of phi_K - phi_0)."""
        return float((result.double() - self.truth).norm() / self._size)

    def check(self, result: Tensor, times: float = OURS) -> float:
        """The error.

        Args:
            result: of the pass.
            times: how often torch's own error it may have; with a floor.

        Raises:
            WrongResult: the shape is another, or the error is not within what is allowed (NaN never is).
        """
        if result.shape != self.truth.shape:
            raise WrongResult(f"expected a result of {list(self.truth.shape)}, got {list(result.shape)}")
        off = self.error(result)
        allowed = max(times * self.own, 8 * EPS)
        if not off <= allowed:
            raise WrongResult(f"error {off:.1e} against the oracle, expected at most {allowed:.1e}")
        return off
