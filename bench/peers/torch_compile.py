"""Peer `torch_compile`: ``torch.compile`` of the whole ``torch.func`` pass, derivatives and ``vmap`` inside.

As PyTorch's documentation has it ("Compiling functions with torch.func transforms"): the outermost function is compiled, not
its parts; ``fullgraph=True``, so that a break in the graph is an error instead of a slow path; parameters and batches are
arguments, so that nothing is baked in. Inner steps are unrolled by tracing, which is why compiling takes minutes for the pass
`meta`: raise ``--first-limit`` to wait for it.

Settings tried, all run by the bench, which times the fastest: gradients of each player from forward passes of its own, or shared-
(see torch_func.py). ``mode="max-autotune"`` compiles several times as long and tunes kernels that run on GPUs;
``"reduce-overhead"`` means CUDA graphs. Neither is tried.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch

from ..cases import PASSES, Pass, Problem, Step
from .torch_func import batches, over_tasks, parameters, read

__all__ = ["PASSES", "VERSIONS", "variants"]

VERSIONS = ("torch",)


def variants(problem: Problem, which: Pass) -> dict[str, Callable[[], Step]]:
    return {
        name: functools.partial(_build, problem, which, shared)
        for name, shared in (("apart", False), ("shared", True))
    }


def _build(problem: Problem, which: Pass, shared: bool) -> Step:
    (g, d), data = parameters(problem), batches(problem)
    compiled = torch.compile(over_tasks(problem, which, shared), fullgraph=True)
    return Step(run=lambda: compiled(g, d, *data), read=read)
