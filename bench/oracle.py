"""The float64 oracle of one pass, and how far from it a float32 result may be."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from . import ours
from .cases import Pass, Problem

EPS = torch.finfo(torch.float32).eps
# What float32 explains, in units of the error of torch's own. A peer with coarser functions (XLA's, over many steps) is no wrong
# one, and leaving it out would flatter us; a term that it left out would be off by thousands of times as much.
OURS, PEERS = 3.0, 10.0
LOWER = {"tf32": OURS * 2**13, "bf16": OURS * 2**16}  # of ours whose products have so many bits less
# Tasks at once on a GPU: so many that float64 fits, and of images one, since vmap makes grouped convolutions of those whose
# weights belong to a task, and these have no fast kernels in float64.
PART, PART_OF_IMAGES = 132, 1
AGREE = 1e-10  # between two float64 results; float32 is off by a thousand times as much


class WrongResult(Exception):
    """A contestant's result is further from the oracle than float32 explains."""


class Oracle:
    """The true result of a pass, from torch.func on the modules themselves in float64.

    Attributes:
        truth: [P], or [T, P] of the pass `adapt`.
        own: the error of torch's own float32.
    """

    def __init__(self, problem: Problem, which: Pass, device: str = "cpu") -> None:
        exact, single = (_result(problem, which, device, dtype) for dtype in (torch.float64, torch.float32))
        self.truth = exact
        # phi_K lies close to phi_0, of which nothing need be computed: its error counts against the way that it went.
        went = self.truth - problem.phi.double() if which == "adapt" else self.truth
        self._size = went.norm()
        self.own = self.error(single)

    def save(self, path: Path) -> None:
        """For `load` in another process."""
        torch.save(vars(self), path)

    @staticmethod
    def load(path: Path) -> Oracle:
        oracle = Oracle.__new__(Oracle)
        vars(oracle).update(torch.load(path, weights_only=True))
        return oracle

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


def _result(problem: Problem, which: Pass, device: str, dtype: torch.dtype) -> Tensor:
    """A pass on the CPU: by the reference engine, or by torch.func on `device` and then held against that engine."""
    if device == "cpu":
        return ours.build(problem, "reference", which, dtype=dtype)[0]()
    if dtype == torch.float64:
        first = problem.part(0, 1)
        expected, got = _result(first, which, "cpu", dtype), by_parts(first, which, device, dtype)
        if not (off := float((got - expected).norm() / expected.norm())) < AGREE:
            raise WrongResult(
                f"oracle of the first task on {device}: expected that of the CPU within {AGREE}, got {off:.1e}"
            )
    return by_parts(problem, which, device, dtype)


def by_parts(
    problem: Problem, which: Pass, device: str, dtype: torch.dtype, size: int | None = None
) -> Tensor:
    """A pass by torch.func on `device`, `size` tasks at a time; the reference engine knows the CPU alone.

    Parts are added in float64, so their number does not show in the result.
    """
    from .peers import torch_func

    size = size or (PART_OF_IMAGES if problem.case.extent else PART)
    given = problem.to(device, dtype)
    tasks = problem.case.tasks
    results = []
    for start in range(0, tasks, size):
        part = given.part(start, start + size)
        passed = torch_func.over_tasks(part, which, shared=True)
        result = torch_func.read(passed(*torch_func.parameters(part), *torch_func.batches(part)))
        # of `adapt` every task's own result; of the others the part's mean
        results.append(result.cpu().double() * (1 if which == "adapt" else part.case.tasks / tasks))
    return torch.cat(results) if which == "adapt" else torch.stack(results).sum(0)
