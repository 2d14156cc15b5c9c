"""What a pass asks of a machine, counted instead of timed: FLOPs, bytes moved, bytes of buffers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

import pymgan
from pymgan.buffers import BufferPool

from .cases import Case, Pass


def count(program: Any, case: Case, which: Pass, what: Literal["flops", "bytes"]) -> int:
    """FLOPs (the merged count), or bytes read and written if each operand moves once, of one pass over all tasks.

    It is the sum over the procedures that the pass runs.

    Args:
        program: of an engine that keeps everything (storage "all"), compiled for `case`.
        case: gives T and K.
        which: the pass.
        what: the procedures' attribute to add up.
    """
    last = case.inner_steps - 1
    procedures = [program.step] * case.inner_steps
    if which == "first":
        procedures.append(program.gradients(full=False))
    if which == "meta":
        procedures.append(program.gradients(full=True))
        for k in range(last, -1, -1):  # as `ours` asks: both halves of v_K, of v_0 each player's own
            keep = ["G", "D"] if k == 0 else ["GD", "GD"]
            procedures.append(program.pull(support=["GD", "GD"], keep=keep))
    return case.tasks * sum(getattr(procedure, what) for procedure in procedures)


def gflop(case: Case, which: Pass) -> float:
    """Work of a pass in GFLOP: the frozen constant, or for an altered case what the program counts."""
    if case.gflop is not None:
        return float(getattr(case.gflop, which))
    gan = pymgan.GAN(*case.networks(seed=0), latent=(case.latent,))
    made = pymgan.compile(gan, fakes=case.batch, reals=case.batch, engine="cpu", storage="all")
    return count(made.program, case, which, "flops") / 1e9  # type: ignore[attr-defined]


class Ledger(BufferPool):
    """A pool that remembers the most that it ever held, lent out or kept, in bytes."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__(dtype)
        self._lent: dict[int, int] = {}  # address -> bytes
        self.most = 0

    def take(self, elements: int) -> Tensor:
        buffer = super().take(elements)
        self._lent[buffer.data_ptr()] = buffer.nbytes
        self.most = max(self.most, sum(self._lent.values()) + sum(kept.nbytes for kept in self._free))
        return buffer

    def give(self, buffer: Tensor) -> None:
        del self._lent[buffer.data_ptr()]
        super().give(buffer)


def arena_bytes(engine: Any, run: Callable[[], Any]) -> int | None:
    """Bytes of all buffers (workspaces and what is saved for the pull-back) that one call makes an engine hold.

    Args:
        engine: the engine; one without buffers of its own (not cpu) gives None.
        run: the call, on that engine.
    """
    pool = getattr(engine, "_pool", None)
    if pool is None:
        return None
    ledger = Ledger(engine.dtype)
    engine._pool = ledger
    try:
        run()
    finally:
        engine._pool = pool
    return ledger.most
