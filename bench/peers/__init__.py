"""The alternatives, one file each, written the way that library's own documentation recommends.

A peer is a module with ``VERSIONS``, the packages whose versions its row reports, ``PASSES``, what it can compute, and
``variants(problem, which)``, which names every setting worth trying and how to build it. The harness times the fastest.
A peer's imports stand in its own file: one that is not installed costs a row that says so and nothing else.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Protocol

from ..cases import Pass, Problem, Step

# id (in rows and for --peer) -> module
PEERS = {
    "torch_func": "bench.peers.torch_func",
    "torch_compile": "bench.peers.torch_compile",
    "autograd": "bench.peers.autograd",
    "jax": "bench.peers.jax_vmap",
    "higher": "bench.peers.higher_loop",
    "torchopt": "bench.peers.torchopt_loop",
}

# Who is run on a GPU unless others are asked for, and the settings that are then tried, those that begin so: device time is
# short. `--peer ID:SETTING` tries any other.
ON_CUDA = {
    "jax": ("vmap-",),
    "torch_func": ("shared-vjp-inside", "shared-autograd-outside", "shared-grad"),
    "autograd": ("shared",),
    "torch_compile": ("shared",),  # the last, since it compiles longest
}
# They take one task after the other, so a call's time grows with the tasks while the others' hardly does.
TASK_BY_TASK = ("autograd", "higher", "torchopt")


class Peer(Protocol):
    """What a peer's module holds."""

    VERSIONS: tuple[str, ...]
    PASSES: tuple[Pass, ...]

    def variants(self, problem: Problem, which: Pass) -> dict[str, Callable[[], Step]]: ...


def load(name: str) -> Peer:
    """Import one peer. Raises ImportError when its library is not installed."""
    return importlib.import_module(PEERS[name])  # type: ignore[return-value]
