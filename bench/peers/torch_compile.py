"""Peer `torch_compile`: ``torch.compile`` of the whole ``torch.func`` pass, derivatives and ``vmap`` inside.

As PyTorch's documentation has it ("Compiling functions with torch.func transforms"): the outermost function is compiled, not
its parts; ``fullgraph=True``, so that a break in the graph is an error instead of a slow path; parameters and batches are
arguments, so that nothing is baked in. Inner steps are unrolled by tracing, which is why compiling takes minutes for the pass
`meta`: raise ``--first-limit`` to wait for it.

Settings tried, all run by the bench, which times the fastest: gradients of each player from forward passes of its own, or shared-
(see torch_func.py). On a GPU the mode is ``"reduce-overhead"``, which is CUDA graphs. ``"max-autotune"``, which compiles several
times as long, is not tried.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch

from ..cases import PASSES, Pass, Problem, Step
from .torch_func import Players, batches, over_tasks, parameters, read

__all__ = ["PASSES", "VERSIONS", "variants"]

VERSIONS = ("torch",)


def variants(problem: Problem, which: Pass) -> dict[str, Callable[[], Step]]:
    return {
        name: functools.partial(_build, problem, which, shared)
        for name, shared in (("apart", False), ("shared", True))
    }


def _build(problem: Problem, which: Pass, shared: bool) -> Step:
    (g, d), data = parameters(problem), batches(problem)
    passed = over_tasks(problem, which, shared)
    if not problem.phi.is_cuda:
        compiled = torch.compile(passed, fullgraph=True)
        return Step(run=lambda: compiled(g, d, *data), read=read)
    replayed = torch.compile(passed, fullgraph=True, mode="reduce-overhead")

    def run() -> Players:
        """Its tensors are the graph's own, valid until the next call."""
        torch.compiler.cudagraph_mark_step_begin()
        return replayed(g, d, *data)

    return Step(run=run, read=read)
